//! What the command line does without a node.

mod support;

use support::{command, dunlin, finish};

#[test]
fn a_wrong_command_line_is_code_2_and_help_is_code_0() {
    for words in [
        &["nonsense"][..],
        &["invoke", "not-a-path"],
        &["invoke", "a/b", "--unknown"],
        &["deploy", "--app", "Not A Name", "f.wasm"],
        &["deploy", "--app", "a", "--kind", "batch", "f.wasm"],
        &["invocations", "show", "xyz"],
        &["usage", "--since", "yesterday"],
        &["ps", "--admin", "nowhere"],
        &["ps", "--admin", "https://127.0.0.1:1"],
        &[],
    ] {
        assert_eq!(dunlin(words).code, 2, "{words:?}");
    }
    let help = dunlin(&["--help"]).ok();
    assert!(help.text().contains("Exit codes:"), "{}", help.text());
    dunlin(&["--version"]).ok();
    dunlin(&["deploy", "--help"]).ok();
}

#[test]
fn nobody_at_the_address_is_code_5_and_says_what_to_do() {
    // Port 9 of loopback: nothing of ours is there, and nothing answers.
    let failed = dunlin(&["ps", "--admin", "127.0.0.1:9"]);
    assert_eq!(failed.code, 5, "{}", failed.stderr);
    assert!(
        failed
            .stderr
            .contains("next: start a node with `dunlin up`"),
        "{}",
        failed.stderr
    );
    assert!(failed.stdout.is_empty());
}

#[test]
fn files_that_are_missing_or_wrong_are_told_apart() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().to_str().unwrap();
    let none = dunlin(&["deploy", path]);
    assert_eq!(none.code, 3, "{}", none.stderr);
    let none = dunlin(&["deploy", "--app", "a", &format!("{path}/none.wasm")]);
    assert_eq!(none.code, 3, "{}", none.stderr);
    std::fs::write(
        folder.path().join("dunlin.toml"),
        "app = \"a\"\nfunktion = 1\n",
    )
    .unwrap();
    let bad = dunlin(&["build", path]);
    assert_eq!(bad.code, 4, "{}", bad.stderr);
    assert!(
        bad.stderr
            .contains("line 2: unknown key `funktion`: did you mean `function`?"),
        "{}",
        bad.stderr
    );
    std::fs::write(folder.path().join("dunlin-node.toml"), "lisen = 1\n").unwrap();
    let config = folder.path().join("dunlin-node.toml");
    let bad = dunlin(&["up", "--config", config.to_str().unwrap()]);
    assert_eq!(bad.code, 4, "{}", bad.stderr);
    assert!(
        bad.stderr.contains("did you mean `listen`?"),
        "{}",
        bad.stderr
    );
}

#[test]
fn builds_show_their_output_and_fail_with_their_command() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().to_str().unwrap();
    let manifest = |build: &str| {
        let text = format!(
            "app = \"a\"\n[[function]]\nname = \"f\"\nartifact = \"f.wasm\"\nbuild = \"{build}\"\n"
        );
        std::fs::write(folder.path().join("dunlin.toml"), text).unwrap();
        dunlin(&["build", path])
    };
    let failed = manifest("echo compiling; exit 7");
    assert_eq!(failed.code, 1, "{}", failed.stderr);
    assert!(failed.stderr.contains("compiling"), "{}", failed.stderr);
    let nothing = manifest("true");
    assert_eq!(nothing.code, 3, "{}", nothing.stderr);
    let built = manifest("touch f.wasm");
    assert_eq!(built.code, 0, "{}", built.stderr);
    assert!(built.stdout.is_empty(), "results alone go to stdout");
}

#[test]
fn completions_and_the_schema_are_printed() {
    for shell in ["bash", "zsh", "fish"] {
        let script = dunlin(&["completions", shell]).ok();
        assert!(script.text().contains("dead-letters"), "{shell}");
    }
    let schema = dunlin(&["schema"]).json();
    assert_eq!(schema["title"], "dunlin.toml");
}

#[test]
fn a_script_of_completions_is_one_that_bash_accepts() {
    let script = dunlin(&["completions", "bash"]).ok();
    let mut bash = std::process::Command::new("bash");
    let checked = finish(bash.args(["-n"]), &script.stdout);
    assert_eq!(checked.code, 0, "{}", checked.stderr);
}

#[test]
fn a_new_project_is_written_once() {
    let folder = tempfile::tempdir().unwrap();
    let new = || {
        finish(
            command(&["new", "hello", "-l", "c"]).current_dir(folder.path()),
            b"",
        )
    };
    assert_eq!(new().code, 0);
    assert!(folder.path().join("hello/main.c").is_file());
    assert_eq!(new().code, 4);
}
