//! docs/linux.md lists the calls that are offered, as the table has them.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::fmt::Write;
use std::path::Path;

const BEGIN: &str = "<!-- calls: generated, see crates/microvm/tests/linux_docs.rs -->\n";
const END: &str = "<!-- end of calls -->\n";

fn table() -> String {
    let mut groups: Vec<&str> = Vec::new();
    for row in microvm::linux::TABLE {
        if !groups.contains(&row.group) {
            groups.push(row.group);
        }
    }
    let mut text = String::new();
    for group in groups {
        writeln!(
            text,
            "\n### {group}\n\n| call | how it differs from Linux |\n|---|---|"
        )
        .unwrap();
        let rows = microvm::linux::TABLE
            .iter()
            .filter(|row| row.group == group);
        for row in rows {
            writeln!(text, "| `{}` | {} |", row.name(), row.note).unwrap();
        }
    }
    text.push('\n');
    text
}

#[test]
fn the_page_lists_what_the_table_has() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/linux.md");
    let page = std::fs::read_to_string(&path).unwrap();
    let (head, rest) = page.split_once(BEGIN).unwrap();
    let (_, tail) = rest.split_once(END).unwrap();
    let wanted = format!("{head}{BEGIN}{}{END}{tail}", table());
    if std::env::var_os("UPDATE_GENERATED").is_some() {
        std::fs::write(&path, &wanted).unwrap();
    }
    assert_eq!(page, wanted, "run it with UPDATE_GENERATED=1");
}
