//! Dumps that would have a database's client do more than send SQL.
#![allow(clippy::unwrap_used)]

use fabkeep_ledger::dump_commands::{Dialect, Why, refused};

fn why(text: &str, dialect: Dialect) -> Option<Why> {
    refused(text.as_bytes(), dialect).unwrap().map(|refused| refused.why)
}

const POSTGRES_DUMP: &str = "--\n-- PostgreSQL database dump\n--\n\nSET statement_timeout = 0;\nSET client_encoding = 'UTF8';\n\
    SET standard_conforming_strings = on;\nSELECT pg_catalog.set_config('search_path', '', false);\n\
    ALTER TABLE IF EXISTS ONLY public.users DROP CONSTRAINT IF EXISTS users_pkey;\nDROP TABLE IF EXISTS public.users;\n\
    /* a /* nested */ \\! comment */\n\
    CREATE TABLE public.users (\n    id character varying(255) NOT NULL,\n    \"odd \\ name\" text DEFAULT 'a''b'::text,\n    \
    level integer DEFAULT 0\n);\n\n\
    CREATE FUNCTION public.f() RETURNS integer LANGUAGE sql AS $_$ SELECT 1; \\! id $ $__$ $_$;\n\
    COMMENT ON TABLE public.users IS 'C:\\path';\n\
    COPY public.users (id, token) FROM stdin;\n\\\\! id\nb\\tx\t\\N\n\\.x\n';\\restrict\n\\.\n\n\
    CREATE INDEX i ON public.users USING btree (id) WHERE (id <> E'it\\'s''\\\\');\n\
    SELECT pg_catalog.setval('public.s', 1, false);\n--\n-- PostgreSQL database dump complete\n--\n\n";

const MYSQL_DUMP: &str = "/*M!999999\\- enable the sandbox mode */\n-- MariaDB dump 10.19\n--\n-- Host: x\n\n\
    /*!40101 SET @OLD_SQL_MODE=@@SQL_MODE, SQL_MODE='NO_AUTO_VALUE_ON_ZERO' */;\n\
    DROP TABLE IF EXISTS `users`;\n/*!40101 SET character_set_client = utf8 */;\n\
    CREATE TABLE `users` (\n  `id` varchar(255) NOT NULL,\n  `system` text DEFAULT NULL,\n  PRIMARY KEY (`id`)\n) ENGINE=InnoDB;\n\
    LOCK TABLES `users` WRITE;\n/*!40000 ALTER TABLE `users` DISABLE KEYS */;\n\
    INSERT INTO `users` (`id`, `token`) VALUES ('it\\'s \\\\',0x00FF);\nINSERT INTO `users` (`id`) VALUES ('a\nsystem id\n\\! id\n');\n\
    INSERT INTO `users` (`id`) VALUES ('`#-- /*\"');\n\
    /*!40000 ALTER TABLE `users` ENABLE KEYS */;\nUNLOCK TABLES;\n# a comment \\! id\n-- Dump completed\n";

#[test]
fn dumps_as_the_tools_write_them_pass() {
    assert_eq!(refused(POSTGRES_DUMP.as_bytes(), Dialect::Postgres).unwrap(), None);
    assert_eq!(refused(MYSQL_DUMP.as_bytes(), Dialect::MySql).unwrap(), None);
    assert_eq!(why("", Dialect::Postgres), None);
    assert_eq!(why("", Dialect::MySql), None);
}

#[test]
fn what_psql_would_obey_is_refused_wherever_it_stands() {
    let commands = [
        "\\! id",
        "\\copy users from program 'id'",
        "\\i /etc/passwd",
        "\\ir x",
        "\\connect x",
        "\\o |id",
        "\\gexec",
        "\\unrestrict x",
        "SELECT 1 \\g |id",
        "CREATE VIEW v AS SELECT 1 \\gexec",
        "DROP TABLE x \\; \\! id",
        "\\set x `id`",
        "\\w |id",
        "\\lo_export 1 /x",
    ];
    let places = [
        ("", "\n"),
        ("CREATE VIEW v AS\n SELECT 1 AS one;\n", "\n--;\n"),
        ("CREATE TABLE x (a int,\n", "\n);\n"),
        ("COPY public.t (a) FROM stdin;\n\\.\n", "\n"),
        ("COMMENT ON TABLE t IS 'a''';", "\n"),
        ("COMMENT ON TABLE t IS E'\\\\';", "\n"),
        ("/* /* */ */", "\n"),
        ("-- x\n", "\n"),
        ("CREATE FUNCTION f() AS $a$ $b$ $a$;", "\n"),
    ];
    for command in commands {
        for (before, behind) in places {
            let text = format!("{before}{command}{behind}");
            assert!(why(&text, Dialect::Postgres).is_some(), "{text}");
        }
    }
}

#[test]
fn what_two_clients_would_cut_differently_is_refused() {
    for text in [
        "COMMENT ON TABLE t IS '\\' ; \\! id --';",
        "SET standard_conforming_strings = off;",
        "SET client_encoding = SJIS;",
        "COMMENT ON TABLE t IS E'\u{c3}\\' ; \\! id';",
        "CREATE FUNCTION f() RETURNS int BEGIN ATOMIC SELECT 1;\nCOPY public.t (a) FROM stdin;\n\\! id\n\\.\n",
        "CREATE TABLE t (a int;\nCOPY public.t (a) FROM stdin;\n\\! id\n\\.\n);",
        "COPY public.t (a) FROM stdin; \\! id\n",
        "COPY public.t (a) FROM stdin; SELECT 1;\n\\.\n",
        "COPY public.t (a) FROM stdin;\nx\n",
        "COMMENT ON TABLE t IS 'x",
        "/* x",
        "CREATE FUNCTION f() AS $a$ x",
        "SET a = 'x\0';",
    ] {
        assert!(why(text, Dialect::Postgres).is_some(), "{text}");
    }
}

#[test]
fn statements_that_run_programs_or_read_files_are_refused() {
    for text in [
        "COPY t FROM PROGRAM 'id';",
        "COPY t TO PROGRAM 'id';",
        "COPY t FROM '/etc/passwd';",
        "DO $$ BEGIN END $$;",
        "ALTER SYSTEM SET x = 1;",
        "SELECT pg_read_file('/etc/passwd');",
        "LOAD 'x';",
        "CALL f();",
        "EXECUTE x;",
        "/* */ DO 'x';",
        "do 'x'",
        "TRUNCATE t;",
    ] {
        assert_eq!(why(text, Dialect::Postgres), Some(Why::Statement), "{text}");
    }
    for text in [
        "LOAD DATA LOCAL INFILE '/etc/passwd' INTO TABLE t;",
        "SELECT 1 INTO OUTFILE '/x';",
        "CREATE TABLE t AS SELECT load_file('/x');",
        "/*!40101 SELECT 1 */;",
        "CREATE FUNCTION f RETURNS STRING SONAME 'x.so';",
        "INSTALL PLUGIN x SONAME 'y';",
        "PREPARE s FROM 'x';",
        "CALL f();",
        "DO SLEEP(1);",
        "HANDLER t OPEN;",
        "LOAD XML INFILE 'x' INTO TABLE t;",
    ] {
        assert_eq!(why(text, Dialect::MySql), Some(Why::Statement), "{text}");
    }
}

#[test]
fn what_mysql_would_obey_is_refused_wherever_it_stands() {
    let commands = [
        "\\! id",
        "\\. /x",
        "system id",
        "source /x",
        "SYSTEM id",
        "pager id",
        "tee /x",
        "delimiter //",
        "use other",
        "\\u x",
        "edit",
    ];
    let places = [
        ("", "\n"),
        ("DROP TABLE t;\n", "\n"),
        ("CREATE VIEW v AS\n", "\n;\n"),
        ("/*!50001 CREATE VIEW v AS\n", " */;\n"),
        ("/* x */\n", "\n"),
        ("-- x\n", "\n"),
        ("# x\n  ", "\n"),
        ("INSERT INTO `t` VALUES ('\\\\');\n", "\n"),
        ("INSERT INTO `t\\` VALUES ('');\n", "\n"),
        ("--x;\n", "\n"),
    ];
    for command in commands {
        for (before, behind) in places {
            let text = format!("{before}{command}{behind}");
            assert!(why(&text, Dialect::MySql).is_some(), "{text}");
        }
    }
}

#[test]
fn a_setting_that_would_cut_quotes_differently_is_refused() {
    for text in [
        "SET sql_mode='NO_BACKSLASH_ESCAPES';",
        "/*!40101 SET SQL_MODE='ansi,No_Backslash_Escapes' */;",
        "SET sql_mode=CONCAT('NO_BACK', 'SLASH_ESCAPES');",
    ] {
        assert_eq!(why(text, Dialect::MySql), Some(Why::Ambiguous), "{text}");
    }
    for text in ["COMMENT ON TABLE t IS 1$a$ ' $a$ \\! id ';", "COMMENT ON TABLE t IS 'a'\n'b\\' \\! id';"] {
        assert!(why(text, Dialect::Postgres).is_some(), "{text}");
    }
    let long = format!("SET a = {}standard_conforming_strings;", "x ".repeat(5000));
    assert!(why(&long, Dialect::Postgres).is_some());
}

#[test]
fn the_line_is_named() {
    let found = refused("SET a = 1;\n\n\\! id\n".as_bytes(), Dialect::Postgres).unwrap().unwrap();
    assert_eq!(found.to_string(), "line 3: a backslash outside of quotes: the client would take it for a command");
}
