//! Takes secrets out of text: those that are known, in the forms in which programs print them, and what looks like one.

use std::collections::BTreeSet;
use std::sync::LazyLock;

use aho_corasick::{AhoCorasick, MatchKind};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE, URL_SAFE_NO_PAD};
use regex::{Captures, Regex};
use serde_json::Value;

/// What stands in the place of a secret.
pub const REDACTED: &str = "[redacted]";

/// A shorter text is no known secret: it would be part of other words.
const SHORTEST: usize = 5;
/// A shorter line of a longer secret is not known by itself.
const SHORTEST_LINE: usize = 8;
/// Most texts that are known.
const MAX_KNOWN: usize = 50_000;
/// Longest secret that is known, in bytes.
const MAX_BYTES: usize = 256 << 10;
/// Letters and digits in a row, mixed, from this length on, are taken for a secret.
const LONG: usize = 40;

/// Words in names of settings whose values are secrets.
const WORDS: &str = r"(?:pass(?:word|wd|phrase|wort)?|pwd|secret|token|api[_\-]?key|private[_\-]?key|access[_\-]?key|signing[_\-]?key|name[_\-]?key|credentials?|authorization|cookie|(?:\b|_)pin\b)";

/// A form in which secrets are written: what matches `secret` in it is taken out.
fn form(pattern: &str) -> Option<Regex> {
    Regex::new(pattern).ok()
}

/// The forms, in the order in which they are looked for.
static FORMS: LazyLock<Vec<Regex>> = LazyLock::new(|| {
    let quoted = r#"\\?"(?:[^"\\]|\\[^"])*\\?"|'[^']*'"#;
    let patterns = [
        // Blocks of PEM that are no certificate, also with `\n` for line breaks, and without an end.
        r"(?s)(?P<secret>-----BEGIN [A-Z0-9 ]*(?:KEY|PARAMETERS|MESSAGE)[A-Z0-9 ]*-----.*?(?:-----END [A-Z0-9 ]+-----|\z))".to_owned(),
        r"(?P<secret>AGE-SECRET-KEY-1[0-9A-Za-z]+)".to_owned(),
        // user:password@ of URLs, and of data source names of MySQL.
        r#"[A-Za-z][A-Za-z0-9+.\-]*://(?P<secret>[^\s"'<>`]*)@"#.to_owned(),
        r#"(?P<secret>[^\s"'=`,]+:[^\s"'`]*)@(?:tcp|udp|unix)?\("#.to_owned(),
        r"(?i)\b(?:bearer|basic|negotiate)\s+(?P<secret>[A-Za-z0-9._~+/=\-]{6,})".to_owned(),
        r"(?P<secret>eyJ[A-Za-z0-9_\-]{8,}\.[A-Za-z0-9_\-]+(?:\.[A-Za-z0-9_\-]*)?)".to_owned(),
        r"\b(?P<secret>(?:AKIA|ASIA)[0-9A-Z]{16}|gh[pousr]_[A-Za-z0-9]{20,}|xox[abprs]-[A-Za-z0-9\-]{10,}|glpat-[A-Za-z0-9_\-]{16,})".to_owned(),
        // A setting on a line of its own: all of the line.
        format!(r#"(?im)^\s*(?:-\s+|export\s+)?["']?[\w.\-]*{WORDS}[\w.\-]*["']?\s*[:=][ \t]*(?P<secret>[^\s\[{{][^\n]*)$"#),
        // A setting in a line.
        format!(r#"(?i)[\w.\-]*{WORDS}[\w.\-]*\\?["']?\s*[:=]\s*(?P<secret>{quoted}|[^\s,;&}}\]"']+)"#),
        // An option of a command, and `-b user:password`.
        format!(r#"(?i)(?:^|\s)--?[\w.\-]*{WORDS}[\w.\-]*\s+(?P<secret>{quoted}|[^\s"']+)"#),
        r"(?:\s-[bup]|\s--bootstrap|\s--user)[ =]+(?P<secret>[^\s:]+:\S+)".to_owned(),
    ];
    patterns.iter().filter_map(|pattern| form(pattern)).collect()
});

static LONG_WORDS: LazyLock<Option<Regex>> = LazyLock::new(|| form(&format!(r"[A-Za-z0-9+/_\-]{{{LONG},}}={{0,2}}")));
static SECRET_NAME: LazyLock<Option<Regex>> = LazyLock::new(|| form(&format!("(?i){WORDS}")));

/// Returns whether a setting of this name holds a secret.
pub fn is_secret_name(name: &str) -> bool {
    SECRET_NAME.as_ref().is_none_or(|pattern| pattern.is_match(name))
}

/// What secrets are known.
#[derive(Default)]
pub struct Redactor {
    known: BTreeSet<String>,
    search: Option<AhoCorasick>,
}

impl Redactor {
    /// Learns a secret. It is found as it is, line by line, and encoded in base64, for URLs and as a JSON string.
    pub fn learn(&mut self, secret: &[u8]) {
        if secret.len() > MAX_BYTES {
            return;
        }
        let text = String::from_utf8_lossy(secret);
        let trimmed = text.trim();
        self.learn_text(trimmed, SHORTEST);
        for line in trimmed.lines().map(str::trim).filter(|line| !line.starts_with("-----")) {
            self.learn_text(line, SHORTEST_LINE);
        }
        for bytes in [secret, trimmed.as_bytes()].into_iter().filter(|bytes| bytes.len() >= SHORTEST) {
            for encoded in [
                STANDARD.encode(bytes),
                STANDARD_NO_PAD.encode(bytes),
                URL_SAFE.encode(bytes),
                URL_SAFE_NO_PAD.encode(bytes),
                hex::encode(bytes),
            ] {
                self.learn_text(&encoded, SHORTEST);
            }
        }
        let escaped = Value::from(trimmed).to_string();
        self.learn_text(escaped.trim_matches('"'), SHORTEST);
        let for_url: String = trimmed
            .bytes()
            .map(|byte| match byte {
                b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => char::from(byte).to_string(),
                other => format!("%{other:02X}"),
            })
            .collect();
        self.learn_text(&for_url, SHORTEST);
        self.learn_text(&for_url.to_lowercase(), SHORTEST);
    }

    fn learn_text(&mut self, text: &str, shortest: usize) {
        if text.len() >= shortest && self.known.len() < MAX_KNOWN {
            self.known.insert(text.to_owned());
            self.search = None;
        }
    }

    /// Learns the secrets that a configuration, a command or an environment holds in one of the known forms.
    pub fn learn_from(&mut self, text: &str) {
        for form in FORMS.iter() {
            let found: Vec<String> = form
                .captures_iter(text)
                .filter_map(|captures| captures.name("secret").map(|secret| secret.as_str().to_owned()))
                .collect();
            for secret in found {
                let bare = secret.trim().trim_matches(['"', '\'', '\\']).to_owned();
                // Of user:password the password.
                if let Some((_, password)) = bare.split_once(':').filter(|_| !bare.starts_with("-----")) {
                    self.learn_value(password);
                }
                self.learn_value(&bare);
            }
        }
    }

    /// Learns the texts of a JSON document, as key files are.
    pub fn learn_values_of(&mut self, document: &[u8]) {
        fn texts(value: &Value, out: &mut Vec<String>) {
            match value {
                Value::String(text) => out.push(text.clone()),
                Value::Array(values) => values.iter().for_each(|value| texts(value, out)),
                Value::Object(fields) => {
                    let secret = fields.iter().filter(|(name, _)| is_secret_name(name));
                    secret.for_each(|(_, value)| texts(value, out));
                }
                _ => {}
            }
        }
        let Ok(document) = serde_json::from_slice::<Value>(document) else { return };
        let mut found = Vec::new();
        texts(&document, &mut found);
        found.iter().for_each(|text| self.learn(text.as_bytes()));
    }

    fn learn_value(&mut self, value: &str) {
        // What refers to a secret is none, and words of YAML are none.
        let refers = value.starts_with('$') || value.starts_with("{{") || value.contains("KeyRef");
        let word = matches!(value.to_lowercase().as_str(), "true" | "false" | "null" | "none" | "required" | "request");
        if !refers && !word && !value.starts_with('/') {
            self.learn(value.as_bytes());
        }
    }

    /// Makes ready for searching.
    fn prepare(&mut self) {
        if self.search.is_none() && !self.known.is_empty() {
            let built = AhoCorasick::builder().match_kind(MatchKind::LeftmostLongest).build(&self.known);
            self.search = built.ok();
        }
    }

    /// Returns a text without secrets.
    pub fn text(&mut self, text: &str) -> String {
        self.prepare();
        let mut out = text.to_owned();
        // What stood around a secret may form another one.
        for _ in 0..4 {
            let Some(search) = self.search.as_ref().filter(|search| search.is_match(&out)) else { break };
            let replaced = search.replace_all(&out, &vec![REDACTED; self.known.len()]);
            if replaced == out {
                break;
            }
            out = replaced;
        }
        for form in FORMS.iter() {
            out = form
                .replace_all(&out, |captures: &Captures<'_>| {
                    let whole = captures.get(0).map_or("", |whole| whole.as_str());
                    let (Some(all), Some(secret)) = (captures.get(0), captures.name("secret")) else {
                        return whole.to_owned();
                    };
                    let (from, to) = (secret.start() - all.start(), secret.end() - all.start());
                    format!("{}{REDACTED}{}", &whole[..from], &whole[to..])
                })
                .into_owned();
        }
        let Some(long) = LONG_WORDS.as_ref() else { return out };
        long.replace_all(&out, |captures: &Captures<'_>| {
            let word = captures.get(0).map_or("", |word| word.as_str());
            if is_random(word) { REDACTED.to_owned() } else { word.to_owned() }
        })
        .into_owned()
    }

    /// Returns a document without secrets: by the names of fields, and in every text.
    pub fn document(&mut self, value: Value) -> Value {
        match value {
            Value::String(text) => Value::String(self.text(&text)),
            Value::Array(values) => values.into_iter().map(|value| self.document(value)).collect(),
            Value::Object(fields) => {
                let cleaned = fields.into_iter().map(|(name, value)| {
                    let value = match value {
                        Value::String(text) if is_secret_name(&name) && !text.is_empty() => REDACTED.into(),
                        other => self.document(other),
                    };
                    (self.text(&name), value)
                });
                Value::Object(cleaned.collect())
            }
            other => other,
        }
    }

    /// Returns whether a text holds a secret that is known.
    pub fn holds_secret(&mut self, text: &str) -> bool {
        self.prepare();
        self.search.as_ref().is_some_and(|search| search.is_match(text))
    }
}

/// Returns whether a word has capitals, small letters and digits as keys and tokens have, and is no hash in hexadecimal, no path and no name.
fn is_random(word: &str) -> bool {
    let count = |is: &dyn Fn(&u8) -> bool| word.bytes().filter(|byte| is(byte)).count();
    let capitals = count(&u8::is_ascii_uppercase);
    let small = count(&u8::is_ascii_lowercase);
    let digits = count(&u8::is_ascii_digit);
    let separators = count(&|byte| matches!(byte, b'/' | b'-' | b'_'));
    capitals >= 4 && small >= 4 && digits >= 2 && separators * 8 <= word.len()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_looks_like_a_secret_is_taken_out_whatever_prints_it() {
        let planted = "S3cr3tWord";
        let jwt = format!("eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiI{planted}.c2ln");
        let texts = [
            format!("password={planted}"),
            format!("db password = {planted}"),
            format!("CORE_LEDGER_STATE_COUCHDBCONFIG_PASSWORD: \"{planted} and {planted}\""),
            format!("registry:\n  identities:\n    - name: admin\n      pass: {planted}, with words {planted}\n"),
            format!("connect postgres://fabric:{planted}@db:5432/ca?sslmode=disable"),
            format!("connect postgres://fabric:a/b@{planted}@db:5432/ca"),
            format!("datasource: fabric:{planted}@tcp(mysql:3306)/ca?parseTime=true"),
            format!("host=db user=ca password={planted} dbname=ca"),
            format!("{{\"level\":\"info\",\"apiKey\":\"{planted}\"}}"),
            format!("body: {{\\\"token\\\":\\\"{planted}\\\"}}"),
            format!("Authorization: Bearer {planted}{planted}"),
            format!("sent Bearer {planted}"),
            jwt,
            format!("-----BEGIN EC PRIVATE KEY-----\n{planted}\n-----END EC PRIVATE KEY-----"),
            format!("key -----BEGIN PRIVATE KEY-----\\n{planted}\\n-----END PRIVATE KEY-----\\n"),
            format!("-----BEGIN ENCRYPTED PRIVATE KEY-----\n{planted}\nand the log ends"),
            format!("AGE-SECRET-KEY-1{}", planted.to_uppercase()),
            format!("fabric-ca-server start -b admin:{planted}"),
            format!("fabric-ca-client enroll --enrollment.secret {planted}"),
            format!("mysql --password {planted} -h db"),
        ];
        for text in texts {
            let clean = Redactor::default().text(&text);
            let gone = !clean.contains(planted) && !clean.contains(&planted.to_uppercase());
            assert!(gone && clean.contains(REDACTED), "{text}\n{clean}");
        }
    }

    #[test]
    fn what_is_known_is_taken_out_in_every_encoding_and_nothing_else_is() {
        let mut redactor = Redactor::default();
        redactor.learn(b"p&ss/w\"rd\n");
        redactor.learn_from("db:\n  datasource: host=db password=hunter22 user=ca\n");
        for form in [
            "p&ss/w\"rd",
            "cCZzcy93InJk",
            "cCZzcy93InJkCg==",
            "p%26ss%2Fw%22rd",
            "p&ss/w\\\"rd",
            "hunter22",
            "aHVudGVyMjI",
        ] {
            let clean = redactor.text(&format!("it says {form} here"));
            assert_eq!(clean, format!("it says {REDACTED} here"), "{form}");
            assert!(redactor.holds_secret(form) && !redactor.holds_secret(&clean));
        }
        let hash = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";
        let harmless = [
            format!("2026-11-30 blocks 17 to 20 of mychannel, hash {hash}"),
            "/var/hyperledger/production/ledgersData/chains/chains/mychannel/blockfile_000000".to_owned(),
            "pod peer0-7d9c5b6f4d-x2x9z is Ready; pvc-0b1c2d3e-4f50-6172-8394-a5b6c7d8e9f0".to_owned(),
            "the tokens of the commit, a passing test, passed".to_owned(),
        ];
        for text in harmless {
            assert_eq!(redactor.text(&text), text);
        }
    }

    #[test]
    fn fields_with_names_of_secrets_are_taken_out_of_documents() {
        let document = json!({"name": "ca", "adminPassword": "short", "nested": [{"token": "x1"}, "user:pw12345@tcp(db)"], "count": 3});
        let clean = Redactor::default().document(document);
        assert_eq!(clean["adminPassword"], REDACTED);
        assert_eq!(clean["nested"][0]["token"], REDACTED);
        assert_eq!(clean["nested"][1], format!("{REDACTED}@tcp(db)"));
        assert_eq!((&clean["name"], &clean["count"]), (&json!("ca"), &json!(3)));
    }
}
