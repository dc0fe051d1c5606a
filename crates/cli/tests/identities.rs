//! The identity (private key): protected by a passphrase, or printed by a command. A backup needs neither.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod place;

use std::process::Stdio;

use place::{Ended, Place, ended};

const VERIFY: [&str; 3] = ["verify", "--repo", "repository"];
const PASSPHRASE: &str = "correct horse battery staple";

/// Runs a command with a passphrase in the environment, or without; nobody can be asked for one.
fn run(place: &Place, passphrase: Option<&str>, arguments: &[&str]) -> Ended {
    let mut command = place.command(arguments);
    command.args(["--output", "json"]).env_remove("FABKEEP_IDENTITY_COMMAND").env_remove("FABKEEP_PASSPHRASE");
    if let Some(passphrase) = passphrase {
        command.env("FABKEEP_PASSPHRASE", passphrase);
    }
    // A session of its own has no terminal.
    let mut setsid = std::process::Command::new("setsid");
    setsid.arg("-w").arg(command.get_program()).args(command.get_args()).stdin(Stdio::null());
    setsid.current_dir(command.get_current_dir().unwrap());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => setsid.env(name, value),
            None => setsid.env_remove(name),
        };
    }
    ended(setsid.output().unwrap())
}

#[test]
fn an_identity_that_is_protected_by_a_passphrase_opens_with_it_alone() {
    let place = Place::empty();
    fabkeep_fixtures::unpack(fabkeep_fixtures::NETWORK_SMALL, &place.network()).unwrap();
    let init =
        ["init", "--repo", "repository", "--identity", "keys/identity", "--writer", "keys/writer", "--passphrase"];
    let nobody = run(&place, None, &init);
    assert!(nobody.code == 2 && nobody.text.contains("FABKEEP_PASSPHRASE"), "{}", nobody.text);
    assert!(!place.path("keys/identity").exists());
    let made = run(&place, Some(PASSPHRASE), &init);
    assert_eq!(made.code, 0, "{}", made.text);
    let file = std::fs::read_to_string(place.path("keys/identity")).unwrap();
    assert!(file.starts_with("-----BEGIN AGE ENCRYPTED FILE-----") && !file.contains("SECRET-KEY"));
    assert_eq!(place.backup(&[]).code, 0, "a backup needs no identity");
    let with_file = [&VERIFY[..], &["--identity", "keys/identity"]].concat();
    let right = run(&place, Some(PASSPHRASE), &with_file);
    assert_eq!(right.code, 0, "{}", right.text);
    for (passphrase, said) in [(Some("wrong"), "the passphrase is wrong"), (None, "FABKEEP_PASSPHRASE")] {
        let refused = run(&place, passphrase, &with_file);
        assert!(refused.code == 2 && refused.text.contains(said), "{}", refused.text);
    }
    // A second repository of the same identity.
    let second = ["init", "--repo", "second", "--identity", "keys/identity", "--writer", "keys/second"];
    assert_eq!(run(&place, Some("wrong"), &second).code, 2);
    assert_eq!(run(&place, Some(PASSPHRASE), &second).code, 0);
    let doctor = ["doctor", "--repo", "repository", "--root", "network", "--writer", "keys/writer"];
    let doctor = run(&place, None, &[&doctor[..], &["--identity", "keys/identity"]].concat());
    assert!(doctor.text.contains("protected by a passphrase, and was not tried"), "{}", doctor.text);
    // What is encrypted and damaged is no panic.
    for cut in [40, file.len() / 2, file.len() - 40] {
        std::fs::write(place.path("keys/identity"), &file[..cut]).unwrap();
        let damaged = run(&place, Some(PASSPHRASE), &with_file);
        assert!(damaged.code == 2 && !damaged.text.contains("panicked"), "{}", damaged.text);
    }
}

#[test]
fn an_identity_that_a_command_prints_is_used_and_never_repeated() {
    let place = Place::new();
    assert_eq!(place.backup(&[]).code, 0);
    let secret = std::fs::read_to_string(place.path("keys/identity")).unwrap();
    let secret = secret.lines().find(|line| line.starts_with("AGE-SECRET-KEY")).unwrap();
    let by = |command: &str| run(&place, None, &[&VERIFY[..], &["--identity-command", command]].concat());
    let right = by("cat keys/identity");
    assert_eq!(right.code, 0, "{}", right.text);
    for (command, said) in [
        ("cat keys/identity; exit 3", "exit status: 3"),
        ("cat keys/identity; echo junk", "it is not an age identity file"),
        ("true", "it contains no identity"),
        ("tail -n 1 keys/identity | head -c 30", "it is not an age identity file"),
    ] {
        let refused = by(command);
        assert!(refused.code == 2 && refused.text.contains(said), "{command}: {}", refused.text);
        assert!(!refused.text.contains(secret), "{}", refused.text);
    }
    let both =
        run(&place, None, &[&VERIFY[..], &["--identity", "keys/identity", "--identity-command", "true"]].concat());
    assert_eq!(both.code, 2, "{}", both.text);
}
