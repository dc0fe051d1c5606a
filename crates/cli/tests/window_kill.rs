//! fabkeep killed inside a no-transaction window, at any step: `status` says so, one command undoes it, and the next backup is whole.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod place;

use std::process::{Command, Stdio};
use std::time::Duration;

use place::Place;

/// Kills: 40 unless the environment says otherwise.
fn wanted() -> u64 {
    std::env::var("FABKEEP_KILLS").ok().and_then(|text| text.parse().ok()).unwrap_or(20)
}

/// The small network with its inventory, which names the places of this machine.
fn place() -> Place {
    let place = Place::new();
    assert_eq!(place.run(&["discover", "--root", "network"]).code, 0);
    place
}

fn backup_of(place: &Place) -> Command {
    place.command(&["backup", "--repo", "repository", "--writer", "keys/writer", "--quiesce", "hook"])
}

fn text(output: &std::process::Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

#[test]
fn a_kill_inside_the_window_is_told_and_one_command_undoes_it() {
    let place = place();
    let closed = place.path("closed");
    let note = place.path("fabkeep.toml.window");
    let before = format!("touch {}", closed.display());
    let after = format!("rm -f {}", closed.display());
    let backup = || {
        let mut command: Command = backup_of(&place);
        command.args(["--hook-before", &before, "--hook-after", &after, "--settle", "0.05"]);
        command
    };
    // How long an undisturbed one takes, to spread the kills over it.
    let begun = std::time::Instant::now();
    let output = backup().output().unwrap();
    assert!(matches!(output.status.code(), Some(0 | 3)), "{}", text(&output));
    let whole = begun.elapsed();
    let mut open = 0;
    for number in 0..wanted() {
        let mut child = backup().stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        if number % 2 == 0 {
            std::thread::sleep(whole.mul_f64((number + 1) as f64 / wanted() as f64));
        } else {
            // Inside the window, however fast the machine is.
            while !closed.exists() && child.try_wait().unwrap().is_none() {
                std::thread::sleep(Duration::from_millis(1));
            }
        }
        let _ = child.kill();
        child.wait().unwrap();
        // What was closed is noted: never the one without the other.
        assert!(note.exists() || !closed.exists(), "closed, and no note of it");
        let status = place.command(&["status", "--logs", "0"]).output().unwrap();
        assert_eq!(text(&status).contains("W2"), note.exists(), "{}", text(&status));
        if note.exists() {
            open += 1;
            assert!(text(&status).contains("fabkeep resume"), "{}", text(&status));
            assert_eq!(status.status.code(), Some(3));
            // A second window is refused while the first is open.
            let second = backup().output().unwrap();
            assert_eq!(second.status.code(), Some(4), "{}", text(&second));
            let undone = place.command(&["resume"]).output().unwrap();
            assert!(undone.status.success(), "{}", text(&undone));
        }
        assert!(!closed.exists() && !note.exists());
        let again = place.command(&["resume"]).output().unwrap();
        assert!(again.status.success() && text(&again).contains("no window is open"));
    }
    assert!(open > 0, "no kill hit the window");
    println!("{open} of {} kills left a window open", wanted());
    let output = backup().output().unwrap();
    assert!(matches!(output.status.code(), Some(0 | 3)), "{}", text(&output));
}

#[test]
fn ctrl_c_inside_the_window_undoes_it() {
    let place = place();
    let closed = place.path("closed");
    let before = format!("touch {}", closed.display());
    let after = format!("rm -f {}", closed.display());
    let mut command = backup_of(&place);
    // Heights are equal at once, and must stay so for long: the window is open meanwhile.
    command.args(["--hook-before", &before, "--hook-after", &after, "--settle", "60"]);
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let begun = std::time::Instant::now();
    while !closed.exists() {
        assert!(begun.elapsed() < Duration::from_secs(60));
        std::thread::sleep(Duration::from_millis(10));
    }
    let pid = rustix::process::Pid::from_raw(child.id() as i32).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130), "{}", text(&output));
    assert!(!closed.exists() && !place.path("fabkeep.toml.window").exists());
}

#[test]
fn a_hook_that_fails_undoes_what_was_done_and_says_what_to_do() {
    let place = place();
    let closed = place.path("closed");
    let before = format!("touch {}; echo no such client >&2; exit 7", closed.display());
    let after = format!("rm -f {}", closed.display());
    let mut command = backup_of(&place);
    let output = command.args(["--hook-before", &before, "--hook-after", &after]).output().unwrap();
    assert_eq!(output.status.code(), Some(2), "{}", text(&output));
    assert!(text(&output).contains("no such client") && text(&output).contains("next:"), "{}", text(&output));
    assert!(!closed.exists() && !place.path("fabkeep.toml.window").exists());
}

/// The note of a window that was killed with the transactions kept away, and what was closed.
fn killed_inside(place: &Place) -> std::path::PathBuf {
    let closed = place.path("closed");
    let before = format!("touch {}", closed.display());
    let after = format!("rm -f {}", closed.display());
    let mut command = backup_of(place);
    command.args(["--hook-before", &before, "--hook-after", &after, "--settle", "60"]);
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let begun = std::time::Instant::now();
    while !closed.exists() {
        assert!(begun.elapsed() < Duration::from_secs(60));
        std::thread::sleep(Duration::from_millis(10));
    }
    let _ = child.kill();
    child.wait().unwrap();
    closed
}

#[test]
fn a_note_that_this_machine_did_not_sign_is_told_and_nothing_of_it_is_done() {
    let place = place();
    let note = place.path("fabkeep.toml.window");
    let pwned = place.path("pwned");
    let planted = format!(
        r#"{{"run":"x","begun":"2026-11-25T00:00:00Z","by":"backup-host, process 7","changes":[
            {{"change":"hook","before":"true","after":"touch {0}"}},
            {{"change":"stop","node":{{"organization":"Org1","node":"peer0; touch {0}"}},"workload":null}}]}}"#,
        pwned.display()
    );
    let other = place_with_signed_note();
    for written in [planted.as_str(), other.as_str(), "{}", "\u{0}", &"x".repeat(100_000)] {
        std::fs::write(&note, written).unwrap();
        let status = place.command(&["status", "--logs", "0"]).output().unwrap();
        assert!(text(&status).contains("W2") && text(&status).contains("rm "), "{}", text(&status));
        assert_eq!(status.status.code(), Some(3));
        let resumed = place.command(&["resume"]).output().unwrap();
        assert_eq!(resumed.status.code(), Some(4), "{}", text(&resumed));
        let window = backup_of(&place).args(["--hook-before", "true", "--hook-after", "true"]).output().unwrap();
        assert_eq!(window.status.code(), Some(4), "{}", text(&window));
        assert!(note.exists() && !pwned.exists());
    }
    // Without a window a backup does not care.
    let plain = place.command(&["backup", "--repo", "repository", "--writer", "keys/writer"]).output().unwrap();
    assert_eq!(plain.status.code(), Some(0), "{}", text(&plain));
    // Step by step, asked, without commands.
    std::fs::write(&note, &planted).unwrap();
    let answered = |answers: &str| {
        let mut child = place
            .command(&["resume", "--unsigned"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        std::io::Write::write_all(&mut child.stdin.take().unwrap(), answers.as_bytes()).unwrap();
        child.wait_with_output().unwrap()
    };
    let left = answered("n\n");
    assert_eq!(left.status.code(), Some(3), "{}", text(&left));
    assert!(text(&left).contains("commands are never taken from a record of a window") && note.exists());
    let removed = answered("y\ny\ny\n");
    assert!(!note.exists() && !pwned.exists(), "{}", text(&removed));
    let again = place.command(&["resume"]).output().unwrap();
    assert!(again.status.success() && text(&again).contains("no window is open"));
}

/// A note that another machine has signed.
fn place_with_signed_note() -> String {
    let place = place();
    killed_inside(&place);
    std::fs::read_to_string(place.path("fabkeep.toml.window")).unwrap()
}

#[test]
fn a_window_whose_record_is_gone_is_undone_with_the_command_that_the_operator_names() {
    let place = place();
    let closed = killed_inside(&place);
    let note = place.path("fabkeep.toml.window");
    assert!(!std::fs::read_to_string(&note).unwrap().contains("rm -f"), "the note names a command");
    // Somebody removes the note: the machine still knows.
    let saved = std::fs::read(&note).unwrap();
    std::fs::remove_file(&note).unwrap();
    let status = place.command(&["status", "--logs", "0"]).output().unwrap();
    assert!(text(&status).contains("W2"), "{}", text(&status));
    std::fs::write(&note, saved).unwrap();
    std::fs::remove_dir_all(place.path("state/windows")).unwrap();
    let failed = place.command(&["resume"]).output().unwrap();
    assert!(!failed.status.success() && text(&failed).contains("--hook-after"), "{}", text(&failed));
    assert!(note.exists() && closed.exists());
    let after = format!("rm -f {}", closed.display());
    let undone = place.command(&["resume", "--hook-after", &after]).output().unwrap();
    assert!(undone.status.success(), "{}", text(&undone));
    assert!(!note.exists() && !closed.exists());
}

/// Ends a process that a hook has left behind.
fn end(place: &Place, file: &str) {
    let id = std::fs::read_to_string(place.path(file)).unwrap();
    let _ = Command::new("kill").arg(id.trim()).status();
}

#[test]
fn a_hook_that_leaves_a_process_behind_has_ended_with_its_shell() {
    let place = place();
    let leaving = |file: &str| format!("sleep 300 & echo $! > {}", place.path(file).display());
    let begun = std::time::Instant::now();
    let mut command = backup_of(&place);
    command.args(["--hook-before", &leaving("one"), "--hook-after", &leaving("two"), "--settle", "0.05"]);
    // Its output is not a pipe: the process that stays would keep that open.
    let status = command.stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap();
    end(&place, "one");
    end(&place, "two");
    assert!(matches!(status.code(), Some(0 | 3)), "{status}");
    assert!(begun.elapsed() < Duration::from_secs(200));
    assert!(!place.path("fabkeep.toml.window").exists());
}

#[test]
fn a_hook_that_does_not_end_is_stopped_at_the_deadline_and_on_request_and_the_window_is_undone() {
    let place = place();
    let undone = place.path("undone");
    let before = format!("echo $$ > {}; exec sleep 300", place.path("hook").display());
    let after = format!("touch {}", undone.display());
    let mut command = backup_of(&place);
    command.args(["--hook-before", &before, "--hook-after", &after, "--window-deadline", "1"]);
    let late = command.output().unwrap();
    assert!(!late.status.success() && text(&late).contains("did not end within 1 s"), "{}", text(&late));
    assert!(undone.exists() && !place.path("fabkeep.toml.window").exists());
    std::fs::remove_file(&undone).unwrap();
    std::fs::remove_file(place.path("hook")).unwrap();
    let mut command = backup_of(&place);
    command.args(["--hook-before", &before, "--hook-after", &after]);
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    while !place.path("hook").exists() {
        std::thread::sleep(Duration::from_millis(20));
    }
    let asked = Command::new("kill").args(["-TERM", &child.id().to_string()]).status().unwrap();
    assert!(asked.success());
    assert_eq!(child.wait().unwrap().code(), Some(130));
    assert!(undone.exists() && !place.path("fabkeep.toml.window").exists());
}

#[test]
fn a_window_that_cannot_be_undone_is_not_called_nothing_done() {
    let place = place();
    for before in ["true", "exit 3"] {
        let mut command = backup_of(&place);
        command.args(["--hook-before", before, "--hook-after", "exit 4", "--settle", "0.05"]);
        let left = command.output().unwrap();
        assert_eq!(left.status.code(), Some(6), "{}", text(&left));
        assert!(text(&left).contains("the window stays open") && text(&left).contains("fabkeep resume"));
        assert!(place.path("fabkeep.toml.window").exists());
        let failed = place.command(&["resume", "--hook-after", "exit 5"]).output().unwrap();
        assert_eq!(failed.status.code(), Some(6), "{}", text(&failed));
        let undone = place.command(&["resume", "--hook-after", "true"]).output().unwrap();
        assert!(undone.status.success(), "{}", text(&undone));
        assert!(!place.path("fabkeep.toml.window").exists());
    }
}
