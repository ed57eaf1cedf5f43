//! A node from its start to its end, through the command line alone.

mod support;

use std::io::{BufRead as _, BufReader};
use std::process::Stdio;

use support::guests::{ECHO, EXIT, PONG, SPIN, STRANGER, TELL, TRAP};
use support::{Node, finish};

#[test]
fn a_function_is_deployed_called_and_accounted_for() {
    let node = Node::start();
    let deployed = node.deploy("echo", ECHO, &["--output", "json"]).json();
    assert_eq!(deployed["function"], "echo");
    assert_eq!(deployed["alias"], "live");

    let said = node.dunlin(&["invoke", "e2e/echo", "--data", "hello"]).ok();
    assert_eq!(said.text(), "hello");
    let mut command = node.command(&["invoke", "e2e/echo", "--data", "-"]);
    let bytes: Vec<u8> = (0..=255).cycle().take(100_000).collect();
    assert_eq!(finish(&mut command, &bytes).ok().stdout, bytes);

    let functions = node.dunlin(&["functions", "--output", "json"]).json();
    assert_eq!(functions["functions"][0]["name"], "echo");
    let shown = node.dunlin(&["functions"]).ok();
    assert!(shown.text().contains("e2e/echo"), "{}", shown.text());
    assert!(
        !shown.text().contains('\u{1b}'),
        "no colours without a terminal"
    );

    let pools = node.dunlin(&["ps", "--output", "json"]).json();
    assert_eq!(pools["pools"][0]["function"], "echo");
    let usage = node.dunlin(&["usage", "--output", "json"]).json();
    assert_eq!(usage["functions"][0]["invocations"], 2);
    assert_eq!(usage["functions"][0]["output_bytes"], 100_005);

    let prices = node.data.join("prices.toml");
    std::fs::write(
        &prices,
        "currency = \"EUR\"\nmillion_invocations = 1000000.0\n",
    )
    .unwrap();
    let words = [
        "usage",
        "--output",
        "json",
        "--prices",
        prices.to_str().unwrap(),
    ];
    let priced = node.dunlin(&words).json();
    assert_eq!(priced["cost"], 2.0);
    assert_eq!(priced["price"]["currency"], "EUR");
}

#[test]
fn each_kind_of_failure_has_its_exit_code() {
    let node = Node::start();
    for (name, wat) in [("exit", EXIT), ("trap", TRAP)] {
        node.deploy(name, wat, &[]).ok();
        let failed = node.dunlin(&["invoke", &format!("e2e/{name}")]);
        assert_eq!(failed.code, 6, "{name}: {}", failed.stderr);
        assert!(
            failed.stderr.contains("next: "),
            "{name}: {}",
            failed.stderr
        );
        assert!(failed.stdout.is_empty(), "{name}");
    }
    node.deploy("spin", SPIN, &["--limit", "deadline_ms=100"])
        .ok();
    let late = node.dunlin(&["invoke", "e2e/spin"]);
    assert_eq!(late.code, 7, "{}", late.stderr);

    let unknown = node.dunlin(&["invoke", "e2e/nothing"]);
    assert_eq!(unknown.code, 3, "{}", unknown.stderr);
    let graphless = node.dunlin(&["graph", &"0".repeat(32)]);
    assert_eq!(graphless.code, 3, "{}", graphless.stderr);
    let refused = node.deploy("stranger", STRANGER, &[]);
    assert_eq!(refused.code, 4, "{}", refused.stderr);
    assert!(
        refused.stderr.contains("env.launch_missiles"),
        "{}",
        refused.stderr
    );
}

#[test]
fn kinds_are_found_and_settings_reach_the_guest() {
    let node = Node::start();
    node.deploy("pong", PONG, &[]).ok();
    let reply = node.dunlin(&["invoke", "e2e/pong"]).ok();
    assert_eq!(reply.text(), "pong");
    let versions = node
        .dunlin(&["versions", "e2e/pong", "--output", "json"])
        .json();
    assert_eq!(versions["versions"][0]["kind"], "reactor");

    node.deploy("tell", TELL, &["--arg", "--one", "--env", "COLOUR=blue"])
        .ok();
    let told = node.dunlin(&["invoke", "e2e/tell", "--arg", "two"]).ok();
    let text = told.text().replace('\0', " ");
    assert!(text.contains("--one two"), "{text}");
    assert!(text.contains("COLOUR=blue"), "{text}");
}

#[test]
fn versions_are_kept_and_aliases_point_at_them() {
    let node = Node::start();
    let first = node.deploy("f", ECHO, &["--output", "json"]).json();
    let second = node.deploy("f", PONG, &["--output", "json"]).json();
    let digest = |deployed: &serde_json::Value| deployed["version"].as_str().unwrap().to_owned();
    let (first, second) = (digest(&first), digest(&second));
    let invoke = |flags: &[&str]| {
        let words = [&["invoke", "e2e/f", "--data", "ping"], flags].concat();
        node.dunlin(&words).ok().text().to_owned()
    };
    assert_eq!(invoke(&[]), "pong");
    assert_eq!(invoke(&["--alias", &first]), "ping");

    node.dunlin(&["rollback", "e2e/f"]).ok();
    assert_eq!(invoke(&[]), "ping");
    let short = &second["sha256:".len()..][..12];
    node.dunlin(&["alias", "set", "e2e/f", "beta", short]).ok();
    assert_eq!(invoke(&["--alias", "beta"]), "pong");
    let aliases = node.dunlin(&["alias", "list", "e2e/f"]).ok();
    assert!(aliases.text().contains("beta"), "{}", aliases.text());
    node.dunlin(&["alias", "delete", "e2e/f", "beta"]).ok();
    let gone = node.dunlin(&["invoke", "e2e/f", "--alias", "beta"]);
    assert_eq!(gone.code, 3, "{}", gone.stderr);

    node.dunlin(&["functions", "delete", "e2e/f"]).ok();
    assert_eq!(node.dunlin(&["invoke", "e2e/f"]).code, 3);
}

#[test]
fn an_asynchronous_call_is_waited_for_and_a_dead_letter_is_sent_again() {
    let node = Node::start();
    node.deploy("echo", ECHO, &[]).ok();
    let words = [
        "invoke",
        "e2e/echo",
        "--data",
        "later",
        "--async",
        "--idempotency-key",
        "k",
    ];
    let id = node.dunlin(&words).ok().text().trim().to_owned();
    let again = node.dunlin(&words).ok().text().trim().to_owned();
    assert_eq!(id, again, "the key is accepted once");
    let reply = node.dunlin(&["invocations", "wait", &id]).ok();
    assert_eq!(reply.text(), "later");
    let shown = node
        .dunlin(&["invocations", "show", &id, "--output", "json"])
        .json();
    assert_eq!(shown["state"], "succeeded");

    node.deploy("exit", EXIT, &["--limit", "attempts_max=1"])
        .ok();
    let dead = node
        .dunlin(&["invoke", "e2e/exit", "--async"])
        .ok()
        .text()
        .trim()
        .to_owned();
    let waited = node.dunlin(&["invocations", "wait", &dead]);
    assert_eq!(waited.code, 6, "{}", waited.stderr);
    let listed = node
        .dunlin(&["dead-letters", "list", "e2e/exit", "--output", "json"])
        .json();
    assert_eq!(listed["invocations"][0]["id"], dead.as_str());
    let redriven = node
        .dunlin(&["dead-letters", "redrive", &dead])
        .ok()
        .text()
        .trim()
        .to_owned();
    assert_ne!(redriven, dead);
    assert_eq!(node.dunlin(&["invocations", "wait", &redriven]).code, 6);
    let listed = node.dunlin(&["invocations", "list", "e2e/exit"]).ok();
    assert!(listed.text().contains(&redriven), "{}", listed.text());
}

#[test]
fn logs_are_followed_as_they_come() {
    let node = Node::start();
    node.deploy("echo", ECHO, &[]).ok();
    let mut follower = node
        .command(&["logs", "e2e/echo", "-f", "--output", "json"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    node.dunlin(&["invoke", "e2e/echo"]).ok();
    let mut line = String::new();
    let mut lines = BufReader::new(follower.stdout.take().unwrap());
    lines.read_line(&mut line).unwrap();
    follower.kill().unwrap();
    follower.wait().unwrap();
    let line: serde_json::Value = serde_json::from_str(&line).unwrap();
    assert_eq!(line["text"], "echoing");
    assert_eq!(line["stream"], "stderr");

    let id = line["invocation"].as_str().unwrap();
    let tail = node.dunlin(&["logs", "--invocation", id]).ok();
    assert!(tail.text().contains("echoing"), "{}", tail.text());
}

#[test]
fn a_manifest_is_deployed_whole_and_builds_what_is_missing() {
    let node = Node::start();
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(
        folder.path().join("made.wasm"),
        wat::parse_str(ECHO).unwrap(),
    )
    .unwrap();
    std::fs::write(
        folder.path().join("pong.wasm"),
        wat::parse_str(PONG).unwrap(),
    )
    .unwrap();
    let manifest = "app = \"shop\"\n[[function]]\nname = \"echo\"\nartifact = \"out/echo.wasm\"\n\
                    build = \"mkdir -p out && cp made.wasm out/echo.wasm\"\n\
                    [[function]]\nname = \"pong\"\nkind = \"reactor\"\nartifact = \"pong.wasm\"\n";
    std::fs::write(folder.path().join("dunlin.toml"), manifest).unwrap();
    let path = folder.path().to_str().unwrap();
    let deployed = node.dunlin(&["deploy", path, "--output", "json"]).json();
    assert_eq!(deployed.as_array().unwrap().len(), 2);
    assert_eq!(
        node.dunlin(&["invoke", "shop/echo", "--data", "x"])
            .ok()
            .text(),
        "x"
    );
    assert_eq!(node.dunlin(&["invoke", "shop/pong"]).ok().text(), "pong");
    let cached = node.dunlin(&["deploy", path, "--output", "json"]).json();
    assert_eq!(cached[0]["cached"], true);
    assert_eq!(cached[0]["version"], deployed[0]["version"]);
}

#[test]
fn tokens_are_asked_for_and_made_before_the_first_start() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let data_flag = data.to_str().unwrap();
    let none = support::dunlin(&[
        "up",
        "--data",
        data_flag,
        "--listen",
        "127.0.0.1:0",
        "--admin",
        "127.0.0.1:0",
        "--require-token",
    ]);
    assert_eq!(none.code, 4, "{}", none.stderr);
    assert!(
        none.stderr.contains("dunlin token create"),
        "{}",
        none.stderr
    );

    let made = support::dunlin(&["token", "create", "ci", "--data", data_flag]).ok();
    let mut node = Node::start_on(&data, &["--require-token"]);
    let refused = node.dunlin(&["ps"]);
    assert_eq!(refused.code, 4, "{}", refused.stderr);
    node.token = Some(made.text().trim().to_owned());
    node.dunlin(&["ps"]).ok();
    let created = node
        .dunlin(&["token", "create", "other", "--output", "json"])
        .json();
    let id = created["id"].as_str().unwrap();
    let listed = node.dunlin(&["token", "list"]).ok();
    assert!(listed.text().contains("other"), "{}", listed.text());
    node.dunlin(&["token", "revoke", id]).ok();
    assert_eq!(node.dunlin(&["token", "revoke", id]).code, 3);
}

#[test]
fn a_node_keeps_its_functions_and_says_where_it_is_while_it_runs() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let mut node = Node::start_on(&data, &[]);
    let card = std::fs::read_to_string(data.join("node.json")).unwrap();
    assert!(card.contains(&node.admin), "{card}");
    node.deploy("echo", ECHO, &[]).ok();
    let second = support::dunlin(&[
        "up",
        "--data",
        data.to_str().unwrap(),
        "--listen",
        "127.0.0.1:0",
        "--admin",
        "127.0.0.1:0",
    ]);
    assert_eq!(second.code, 4, "{}", second.stderr);
    assert!(
        second.stderr.contains("in use by another node"),
        "{}",
        second.stderr
    );
    let doctor = node
        .dunlin(&["doctor", "--listen", &node.address, "--output", "json"])
        .json();
    let checks = doctor.as_array().unwrap();
    assert!(
        checks
            .iter()
            .any(|check| check["name"] == "node" && check["level"] == "ok")
    );

    assert_eq!(node.stop().code(), Some(0));
    assert!(!data.join("node.json").exists());
    let node = Node::start_on(&data, &[]);
    let reply = node
        .dunlin(&["invoke", "e2e/echo", "--data", "still here"])
        .ok();
    assert_eq!(reply.text(), "still here");
}
