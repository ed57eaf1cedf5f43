//! A disk without room: deploys and accepts are refused, nothing accepted is lost, and the node
//! goes on.
//! Needs root, to mount a small tmpfs; without it the test says so, and fails under REQUIRE_ROOT=1.

mod support;

use std::path::Path;
use std::process::Command;

use serde_json::json;
use support::{ECHO, wasm, world};

/// A tmpfs of 24 MiB, unmounted when dropped.
struct Small(tempfile::TempDir);

impl Small {
    fn mount() -> Option<Self> {
        let folder = tempfile::tempdir().expect("a folder");
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=24m", "tmpfs"])
            .arg(folder.path())
            .status();
        mounted
            .is_ok_and(|status| status.success())
            .then_some(Self(folder))
    }

    fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.0.path()).status();
    }
}

/// Takes all the room that is left, in `filler`.
fn fill(folder: &Path) {
    let mut file = std::fs::File::create(folder.join("filler")).expect("a file");
    for chunk in [1 << 20, 1 << 12, 1] {
        while std::io::Write::write_all(&mut file, &vec![1; chunk]).is_ok() {}
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_refuses_what_it_cannot_keep_and_loses_nothing() {
    let Some(small) = Small::mount() else {
        assert!(
            std::env::var_os("REQUIRE_ROOT").is_none(),
            "a tmpfs cannot be mounted"
        );
        eprintln!("a tmpfs cannot be mounted: this test needs root");
        return;
    };
    let world = world(small.path()).await;
    world.deploy_command("shop/echo", ECHO).await;
    let before = world.call_later("/shop/echo", "before").await.json();
    let before = before["id"].as_str().expect("an id").to_owned();
    assert_eq!(world.ended(&before).await["state"], "succeeded");

    fill(small.path());
    let other = wasm(&support::says("other"));
    let refused = world
        .deploy("shop/other", "command", other.clone(), json!({}))
        .await;
    assert_eq!(
        (refused.status, refused.code().as_str()),
        (507, "storage-full"),
        "{}",
        refused.text()
    );
    let mut accepted = Vec::new();
    // Pages that the store has already may take a few more: then it is full.
    let refused = loop {
        let answer = world.call_later("/shop/echo", vec![b'x'; 60_000]).await;
        if answer.status != 202 {
            break answer;
        }
        accepted.push(answer.json()["id"].as_str().expect("an id").to_owned());
        assert!(accepted.len() < 10_000, "the disk is never full");
    };
    assert_eq!(
        (refused.status, refused.code().as_str()),
        (507, "storage-full"),
        "{}",
        refused.text()
    );
    assert_eq!(
        world.call("/shop/echo", "sync").await.text(),
        "sync",
        "synchronous calls go on"
    );

    std::fs::remove_file(small.path().join("filler")).expect("removed");
    for id in accepted {
        assert_eq!(world.ended(&id).await["state"], "succeeded", "{id}");
    }
    let deployed = world
        .deploy("shop/other", "command", other, json!({}))
        .await;
    assert_eq!(deployed.status, 201, "{}", deployed.text());
    assert_eq!(world.call("/shop/other", "").await.text(), "other");
    let after = world.call_later("/shop/echo", "after").await;
    assert_eq!(after.status, 202, "{}", after.text());
    assert!(world.node.shutdown().await);
}
