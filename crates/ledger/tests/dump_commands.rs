//! Dumps that would have a database's client do more than send SQL.
#![allow(clippy::unwrap_used, clippy::panic)]

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
    ALTER TABLE ONLY public.users\n    ADD CONSTRAINT users_pkey PRIMARY KEY (id);\n\
    ALTER TABLE ONLY public.\"odd users\" ADD CONSTRAINT \"odd key\" UNIQUE (id), ADD CONSTRAINT low CHECK ((lower((id)::text) <> ''::text));\n\
    ALTER TABLE public.users OWNER TO ca;\nCREATE SEQUENCE public.s AS integer START WITH 1;\n\
    ALTER SEQUENCE public.s OWNED BY public.users.level;\n\
    ALTER TABLE ONLY public.users ALTER COLUMN level SET DEFAULT nextval('public.s'::regclass);\n\
    CREATE EXTENSION IF NOT EXISTS plpgsql WITH SCHEMA pg_catalog;\nCOMMENT ON EXTENSION plpgsql IS 'PL/pgSQL';\n\
    GRANT SELECT(id),INSERT ON TABLE public.users TO auditor;\nREVOKE ALL ON SCHEMA public FROM PUBLIC;\n\
    ALTER DEFAULT PRIVILEGES FOR ROLE ca IN SCHEMA public GRANT SELECT ON TABLES TO auditor;\n\
    INSERT INTO public.users (id, level) VALUES ('f(x)', 1), ('b', (2));\n\
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

/// A database that somebody else owned for a while: the dump is loaded by a stronger user than the one who left something in it.
#[test]
fn real_dumps_of_databases_like_a_certificate_authoritys_pass() {
    for (name, dump, dialect) in [
        ("clean", &include_bytes!("dumps/postgres-clean.sql")[..], Dialect::Postgres),
        ("with owners and grants", include_bytes!("dumps/postgres-plain.sql"), Dialect::Postgres),
        ("with inserts", include_bytes!("dumps/postgres-inserts.sql"), Dialect::Postgres),
        ("hexadecimal", include_bytes!("dumps/mariadb-hex.sql"), Dialect::MySql),
        ("plain", include_bytes!("dumps/mariadb-plain.sql"), Dialect::MySql),
    ] {
        assert_eq!(refused(dump, dialect).unwrap(), None, "{name}");
        assert_eq!(Dialect::of(dump).unwrap(), Some(dialect), "{name}");
    }
}

#[test]
fn what_a_certificate_authoritys_database_does_not_hold_is_refused_with_its_kind_and_line() {
    for (text, what) in [
        ("CREATE FUNCTION public.f() RETURNS integer LANGUAGE sql AS $_$ SELECT 1; $_$;", "CREATE FUNCTION"),
        ("CREATE OR REPLACE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT 1';", "CREATE OR REPLACE FUNCTION"),
        ("CREATE PROCEDURE f() LANGUAGE sql AS 'SELECT 1';", "CREATE PROCEDURE"),
        ("CREATE EXTENSION IF NOT EXISTS dblink WITH SCHEMA public;", "CREATE EXTENSION IF NOT"),
        ("CREATE EVENT TRIGGER t ON ddl_command_end EXECUTE FUNCTION f();", "CREATE EVENT TRIGGER T"),
        ("CREATE TRIGGER t BEFORE INSERT ON users FOR EACH ROW EXECUTE FUNCTION f;", "CREATE TRIGGER T BEFORE"),
        ("CREATE RULE r AS ON INSERT TO users DO ALSO DELETE FROM users;", "CREATE RULE R AS"),
        ("CREATE LANGUAGE plperlu;", "CREATE LANGUAGE PLPERLU"),
        ("CREATE FOREIGN DATA WRAPPER w;", "CREATE FOREIGN DATA WRAPPER"),
        ("CREATE FOREIGN TABLE t (a integer) SERVER s;", "CREATE FOREIGN TABLE T"),
        ("CREATE SERVER s FOREIGN DATA WRAPPER w;", "CREATE SERVER S FOREIGN"),
        ("CREATE VIEW v AS SELECT 1;", "CREATE VIEW V AS"),
        ("CREATE MATERIALIZED VIEW v AS SELECT 1;", "CREATE MATERIALIZED VIEW V"),
        ("REFRESH MATERIALIZED VIEW v;", "REFRESH MATERIALIZED VIEW V"),
        ("CREATE TABLE t AS SELECT * FROM pg_authid;", "CREATE TABLE T AS"),
        ("CREATE SUBSCRIPTION s CONNECTION 'x' PUBLICATION p;", "CREATE SUBSCRIPTION S CONNECTION"),
        ("CREATE ROLE r SUPERUSER;", "CREATE ROLE R SUPERUSER"),
        ("CREATE OPERATOR public.+ (FUNCTION = f);", "CREATE OPERATOR"),
        ("ALTER ROLE ca SUPERUSER;", "ALTER ROLE CA SUPERUSER"),
        ("ALTER DATABASE d SET session_preload_libraries = 'x';", "ALTER DATABASE D SET"),
        ("GRANT pg_execute_server_program TO ca;", "GRANT"),
        ("GRANT ALL ON FUNCTION f TO ca;", "GRANT ALL ON FUNCTION"),
        ("SET ROLE postgres;", "SET ROLE POSTGRES"),
        ("SET SESSION AUTHORIZATION postgres;", "SET SESSION AUTHORIZATION POSTGRES"),
        ("SET session_preload_libraries = 'x';", "SET"),
        ("SELECT pg_catalog.set_config('session_preload_libraries', '', false);", "SELECT"),
        ("SELECT pg_catalog.setval('public.s', public.f(), false);", "SELECT"),
        ("ALTER TABLE users ADD CONSTRAINT c CHECK (public.ok((id)::text));", "it calls public.ok"),
        ("ALTER TABLE users ADD CONSTRAINT c CHECK (\"ok\"(id));", "it calls a quoted name"),
        ("ALTER TABLE users ADD CONSTRAINT c CHECK (public.ok/* */(id));", "it calls what stands before a comment"),
        ("ALTER TABLE users ALTER COLUMN id SET DEFAULT pg_read_file('/etc/passwd');", "it calls pg_read_file"),
        ("CREATE TABLE t (a text DEFAULT query_to_xml('x', true, true, ''));", "it calls query_to_xml"),
        ("CREATE INDEX i ON public.t USING btree (public.f(a));", "it calls public.f"),
        ("INSERT INTO t VALUES (lo_import('/etc/passwd'));", "it calls lo_import"),
        ("INSERT INTO t SELECT usename FROM pg_shadow;", "INSERT INTO T SELECT"),
        ("DROP DATABASE d;", "DROP DATABASE D"),
    ] {
        let found = refused(format!("SET a = 1;\n\n{text}\n").as_bytes(), Dialect::Postgres).unwrap();
        let found = found.unwrap_or_else(|| panic!("{text}"));
        assert_eq!((found.why, found.line, found.what.as_deref()), (Why::Statement, 3, Some(what)), "{text}");
    }
    for (text, what) in [
        ("CREATE FUNCTION f() RETURNS INT RETURN 1;", "CREATE FUNCTION"),
        (
            "/*!50003 CREATE*/ /*!50017 DEFINER=`root`@`localhost`*/ /*!50003 TRIGGER t BEFORE INSERT ON u SET a=1 */;",
            "CREATE",
        ),
        ("CREATE EVENT e ON SCHEDULE EVERY 1 DAY DO DELETE FROM t;", "CREATE EVENT E ON"),
        ("CREATE VIEW v AS SELECT 1;", "CREATE VIEW V AS"),
        ("CREATE USER x;", "CREATE USER X"),
        ("CREATE SERVER s FOREIGN DATA WRAPPER mysql OPTIONS (HOST 'x');", "CREATE SERVER S FOREIGN"),
        ("CREATE TABLE t AS SELECT * FROM mysql.user;", "CREATE TABLE T AS"),
        ("CREATE TABLE t LIKE mysql.user;", "CREATE TABLE T LIKE"),
        ("CREATE TABLE t (a int) ENGINE=CONNECT table_type=DOS file_name='/etc/passwd';", "CREATE TABLE T"),
        ("CREATE TABLE t (a int) ENGINE=InnoDB DATA DIRECTORY='/x';", "CREATE TABLE T"),
        ("CREATE TABLE t (a int DEFAULT (sleep(9)));", "it calls sleep"),
        ("CREATE TABLE t (a int DEFAULT (`f`(a)));", "it calls a quoted name"),
        ("INSERT INTO t VALUES (`f`(1));", "it calls a quoted name"),
        ("INSERT INTO t VALUES (1), (sleep(9));", "it calls sleep"),
        ("INSERT INTO t SELECT * FROM mysql.user;", "INSERT INTO T SELECT"),
        ("ALTER USER x IDENTIFIED BY 'y';", "ALTER USER X IDENTIFIED"),
        ("ALTER TABLE t RENAME u;", "ALTER TABLE T RENAME"),
        ("DROP DATABASE d;", "DROP DATABASE D"),
        ("SET GLOBAL general_log_file='/x';", "SET GLOBAL"),
        ("SET @a=1, PERSIST x=1;", "SET"),
        ("SET PASSWORD = 'x';", "SET PASSWORD"),
        ("GRANT ALL ON *.* TO x;", "GRANT ALL ON"),
    ] {
        let found = refused(format!("SET a = 1;\n\n{text}\n").as_bytes(), Dialect::MySql).unwrap();
        let found = found.unwrap_or_else(|| panic!("{text}"));
        assert_eq!((found.why, found.line, found.what.as_deref()), (Why::Statement, 3, Some(what)), "{text}");
    }
    let found = refused(&b"CREATE FUNCTION f;"[..], Dialect::Postgres).unwrap().unwrap();
    assert_eq!(
        found.to_string(),
        "line 1: a statement that a dump of a certificate authority's database does not hold (CREATE FUNCTION F)"
    );
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
    for text in ["SET sql_mode='NO_BACKSLASH_ESCAPES';", "/*!40101 SET SQL_MODE='ansi,No_Backslash_Escapes' */;"] {
        assert_eq!(why(text, Dialect::MySql), Some(Why::Ambiguous), "{text}");
    }
    assert!(why("SET sql_mode=CONCAT('NO_BACK', 'SLASH_ESCAPES');", Dialect::MySql).is_some());
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
