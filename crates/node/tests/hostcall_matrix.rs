//! Every host call from every language, on a node: guests that do what a script says.
//!
//! The scripts are explained in `guests/hostcalls/README.md`; `./x guests` builds the guests.

mod support;

#[path = "../../hostcalls/tests/generate/languages.rs"]
mod languages;

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::Path;

use bytes::Bytes;
use futures::future::join_all;
use hostcalls::TABLE;
use languages::{LANGUAGES, Language, hole};
use serde_json::json;
use support::{World, world};

/// A command and the reply that it must have: word by word, where `#` is any number and `*` any
/// text of four characters or more.
type Line = (String, String);

fn line(command: impl Into<String>, reply: impl Into<String>) -> Line {
    (command.into(), reply.into())
}

/// Text or bytes as scripts write them.
fn hex(bytes: impl AsRef<[u8]>) -> String {
    let bytes = bytes.as_ref();
    let mut text = String::new();
    for byte in bytes {
        write!(text, "{byte:02x}").expect("text grows");
    }
    match bytes {
        [] => "-".into(),
        _ => text,
    }
}

fn fits(wanted: &str, said: &str) -> bool {
    let (wanted, said): (Vec<_>, Vec<_>) = (wanted.split(' ').collect(), said.split(' ').collect());
    let word = |(wanted, said): (&&str, &&str)| match *wanted {
        "#" => said.parse::<u64>().is_ok(),
        "*" => said.len() >= 4,
        _ => wanted == said,
    };
    wanted.len() == said.len() && wanted.iter().zip(&said).all(word)
}

fn reactors() -> impl Iterator<Item = &'static Language> + Clone {
    LANGUAGES.iter().filter(|language| language.is_reactor)
}

async fn deploy(world: &World, language: &Language) {
    let file = format!("../../guests/out/hostcalls/{}.wasm", language.guest);
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(file);
    let guest = std::fs::read(&file).expect("a guest; `./x guests` builds it");
    let kind = if language.is_reactor {
        "reactor"
    } else {
        "http"
    };
    let settings = json!({
        "allow": { "state": [{ "prefix": "s/", "access": "write" }], "call": ["*"] },
        "limits": { "deadline_ms": 240_000 },
    });
    let path = format!("demo/{}", language.guest);
    let deployed = world
        .deploy_with(&path, kind, Bytes::from(guest), settings)
        .await;
    assert_eq!(deployed.status, 201, "{path}: {}", deployed.text());
}

/// Has a guest do a script; the replies are as they must be.
async fn does(world: &World, language: &Language, lines: &[Line]) {
    let guest = language.guest;
    let script: String = lines
        .iter()
        .map(|(command, _)| format!("{command}\n"))
        .collect();
    let answer = world.call(&format!("/demo/{guest}"), script).await;
    assert_eq!(answer.status, 200, "{guest}: {}", answer.text());
    let said: Vec<&str> = answer.text().lines().collect();
    for (at, (command, wanted)) in lines.iter().enumerate() {
        let said = said.get(at).copied().unwrap_or("nothing");
        assert!(
            fits(wanted, said),
            "{guest}, line {at}, {command}: said {said}, wanted {wanted}"
        );
    }
    assert_eq!(said.len(), lines.len(), "{guest} said more than was asked");
}

/// Every call of state, and those of its errors that one function alone can make.
fn state_script(guest: &str) -> Vec<Line> {
    let name = format!("s/k{guest}\n");
    let (key, listed) = (hex(name.trim_end()), hex(&name));
    let number = hex(format!("s/a{guest}"));
    let of = |call: &str, rest: &str| format!("state_{call} {key}{rest}");
    vec![
        line(of("set", &format!(" {}", hex("hello"))), "ok #"),
        line(of("size", ""), "ok 5"),
        line(of("get", " 16"), format!("ok 5 {}", hex("hello"))),
        line(of("get", " 2"), "err -5"),
        line(of("read", " 1 3"), format!("ok 3 {}", hex("ell"))),
        line(of("write", " 7 78"), "ok #"),
        line(of("append", " 797a"), "ok 8"),
        line(of("truncate", " 6"), "ok #"),
        line(of("get", " 100"), "ok 6 68656c6c6f00"),
        line(of("list", " - 100"), format!("ok {} {listed}", name.len())),
        line(of("version", ""), "ok #"),
        line(of("swap", " $10 6e6577"), "ok #"),
        line(of("swap", " $10 6e32"), "err -4"),
        line(format!("state_add {number} 8 5 8"), "ok 8 0500000000000000"),
        line(
            format!("state_add {number} 8 18446744073709551614 100"),
            "ok 8 0300000000000000",
        ),
        line(format!("state_add {number} 4 1 8"), "err -3"),
        line(format!("state_add {number} 8 1 7"), "err -5"),
        line(of("expire", " 100000"), "ok 0"),
        line(of("lock", " 1 0 0"), "ok 0"),
        line(of("unlock", ""), "ok 0"),
        line(of("unlock", ""), "err -2"),
        line(of("push", " 0 0"), "ok #"),
        line(of("pull", " 0 0"), "ok #"),
        line(of("delete", ""), "ok 0"),
        line(of("get", " 10"), "err -2"),
        line(of("set", ""), "bad"),
        line("nonsense 1", "bad"),
        line("state_size zz", "bad"),
        line(format!("state_size {}", hex("other")), "err -1"),
    ]
}

/// Every call of chaining; what is called is the guest in C.
fn chain_script() -> Vec<Line> {
    let (c, size) = (hex("c"), hex("input_size"));
    let trap = hex("peek 4294967000 10");
    vec![
        line(format!("chain_call {c} {size}"), "ok #"),
        line("chain_size $0", "ok 6"),
        line("chain_read $0 1 10", format!("ok 5 {}", hex("k 10\n"))),
        line("chain_id $0 32", "ok 32 *"),
        line("chain_close $0", "ok 0"),
        line(format!("chain_spawn {c} {size} 0"), "ok #"),
        line(format!("chain_spawn {c} {trap} 0"), "ok #"),
        line("chain_wait_all @5,6 100000", "ok 1"),
        line("chain_wait_any @6,5 10", "ok 0"),
        line("chain_wait $6 10", "err -8"),
        line("chain_wait $5 10", "ok 0"),
        line("chain_problem $6 500", "ok # *"),
        line("chain_size $6", "err -8"),
        line(format!("chain_call {} -", hex("none")), "err -2"),
        line(format!("chain_call {} {size}", hex("rust")), "ok #"),
        line("chain_read $14 0 10", format!("ok 6 {}", hex("ok 10\n"))),
    ]
}

/// What only core modules have: mapped memory, and the payload's calls.
fn reactor_scripts(guest: &str) -> Vec<Vec<Line>> {
    let map = format!("state_map {}", hex(format!("s/m{guest}")));
    let mapped = hex(format!("s/m{guest}"));
    let payload = vec![
        line("input_size", "ok #"),
        line("input_read 0 5", format!("ok 5 {}", hex("input"))),
        line(format!("log_write 2 {}", hex("hi")), "ok 0"),
        line("output_write 61", "aok 0"),
    ];
    let memory = vec![
        line(format!("{map} 0 100 1"), "ok #"),
        line("poke $0+3 0102", "ok 2"),
        line("peek $0+2 4", "ok 4 00010200"),
        line(format!("state_read {mapped} 3 2"), "ok 2 0102"),
        line(format!("{map} 3 0 0"), "ok #"),
        line("peek $4 2", "ok 2 0102"),
        line(format!("state_delete {mapped}"), "ok 0"),
    ];
    vec![payload, memory, sdk_script(guest)]
}

/// What SDKs make of the calls.
fn sdk_script(guest: &str) -> Vec<Line> {
    let (c, size, long) = (hex("c"), hex("input_size"), "ab".repeat(6000));
    let (key, lock) = (hex(format!("s/b{guest}")), hex(format!("s/l{guest}")));
    let three = hex("ok 10\n".repeat(3));
    vec![
        line(format!("state_set {key} {long}"), "ok #"),
        line(format!("get {key}"), format!("ok 6000 {long}")),
        line(format!("get {}", hex("s/no")), "err -2"),
        line(
            format!("call {c} {size}"),
            format!("ok 6 {}", hex("ok 10\n")),
        ),
        line(
            format!("call {c} {}", hex("peek 4294967000 10")),
            "err -8 *",
        ),
        line(format!("call {} -", hex("none")), "err -2"),
        line(format!("fan {c} {size} 3"), format!("ok 0 {three}")),
        line(format!("any {c} - 2"), "ok #"),
        line(format!("locked_add {lock} 2 5"), "ok 10"),
    ]
}

/// The calls that scripts made with success.
fn made(scripts: &[Vec<Line>]) -> BTreeSet<String> {
    let made = scripts.iter().flatten().filter(|(_, reply)| {
        // `output_write` has its byte before its reply.
        reply.starts_with("ok") || reply.starts_with("aok")
    });
    made.filter_map(|(command, _)| command.split(' ').next().map(str::to_owned))
        .collect()
}

/// A call that only core modules make, with arguments that they would take.
fn reactor_command(call: &str) -> String {
    let scripts = reactor_scripts("none");
    let mut lines = scripts.into_iter().flatten();
    let (command, _) = lines
        .find(|(command, _)| command.split(' ').next() == Some(call))
        .expect("a core module makes it");
    command
}

#[tokio::test(flavor = "multi_thread")]
async fn every_language_makes_every_call_of_the_table() {
    let folder = tempfile::tempdir().expect("a folder");
    let world = world(folder.path()).await;
    for language in &LANGUAGES {
        deploy(&world, language).await;
    }
    for language in &LANGUAGES {
        let mut scripts = vec![state_script(language.guest), chain_script()];
        if language.is_reactor {
            scripts.extend(reactor_scripts(language.guest));
        }
        for script in &scripts {
            does(&world, language, script).await;
        }
        let made = made(&scripts);
        for call in hostcalls::PAYLOAD.iter().chain(TABLE) {
            let (name, title) = (call.name, language.title);
            if hole(language, name).is_some() {
                does(&world, language, &[line(reactor_command(name), "bad")]).await;
            } else {
                assert!(made.contains(name), "{title} makes no {name}");
            }
        }
    }
    world.node.shutdown().await;
}

/// A number of `f64` as scripts write it.
fn bits(number: f64) -> u64 {
    number.to_bits()
}

/// The entries of a sparse matrix as scripts write them.
fn entries(entries: &[(u32, u32, f64)]) -> String {
    let bytes = entries.iter().flat_map(|(row, col, value)| {
        [row.to_le_bytes(), col.to_le_bytes()]
            .concat()
            .into_iter()
            .chain(value.to_le_bytes())
    });
    hex(bytes.collect::<Vec<u8>>())
}

/// The keys of the objects of one pair.
fn keys(prefix: &str) -> [String; 6] {
    ["v", "m", "s", "li", "d", "c"].map(|object| hex(format!("s/{prefix}/{object}")))
}

fn write_script(prefix: &str) -> Vec<Vec<Line>> {
    let [vector, matrix, sparse, list, dict, counter] = keys(prefix);
    let (number, csr) = (bits(2.5), [(0, 1, 1.0), (2, 0, 2.5), (2, 4, 7.0)]);
    let put = |name: &str, value: &str| {
        let (name, value) = (hex(name), hex(value));
        format!("dict_put {dict} 20 10 {name} {value}")
    };
    // So many that the table grows twice.
    let many = (0..100).map(|at| line(put(&format!("name{at}"), &format!("v{at}")), "ok 0"));
    let first = vec![
        line(format!("vector_put {vector} 10 9 {number}"), "ok 0"),
        line(format!("matrix_put {matrix} 3 4 2 3 {number}"), "ok 0"),
        line(format!("matrix_put {matrix} 4 4 2 3 {number}"), "err -4"),
        line(format!("sparse_put {sparse} 3 5 {}", entries(&csr)), "ok 0"),
        line(format!("list_add {list} 0102"), "ok 0"),
        line(format!("list_add {list} 0304"), "ok 1"),
    ];
    let last = vec![
        line(put("name5", "five"), "ok 0"),
        line(put(&"a".repeat(21), "v"), "err -5"),
        line(format!("dict_put {dict} 21 10 00 00"), "err -4"),
        line(format!("counter_add {counter} 5 2"), "ok 5"),
    ];
    vec![first, many.collect(), last]
}

fn read_script(prefix: &str) -> Vec<Line> {
    let [vector, matrix, sparse, list, dict, counter] = keys(prefix);
    let (number, one) = (format!("ok {}", bits(2.5)), format!("ok {}", bits(1.0)));
    let mut script = vec![
        line(format!("vector_at {vector} 9"), &number),
        line(format!("vector_at {vector} 0"), "ok 0"),
        line(format!("vector_at {vector} 10"), "err -3"),
        line(format!("matrix_at {matrix} 2 3"), &number),
        line(format!("matrix_at {matrix} 0 0"), "ok 0"),
        line(format!("matrix_at {vector} 0 0"), "err -3"),
        line(format!("sparse_at {sparse} 2 0"), &number),
        line(format!("sparse_at {sparse} 1 1"), "ok 0"),
        line(format!("sparse_at {sparse} 0 1"), one),
        line(format!("list_length {list} 2"), "ok 2"),
        line(format!("list_at {list} 2 1"), "ok 2 0304"),
        line(format!("list_at {list} 2 2"), "err -2"),
        line(format!("counter_add {counter} 1 1"), "ok 10"),
        line(format!("counter_value {counter}"), "ok 11"),
    ];
    let of = |what: &str, name: &str| format!("dict_{what} {dict} {}", hex(name));
    script.extend([
        line(format!("dict_length {dict}"), "ok 100"),
        line(of("get", "name5"), format!("ok 4 {}", hex("five"))),
        line(of("get", "name99"), format!("ok 3 {}", hex("v99"))),
        line(of("get", "nope"), "err -2"),
    ]);
    script.extend((0..10).map(|at| line(of("remove", &format!("name{}", 2 * at)), "ok 0")));
    script.extend([
        line(of("remove", "name0"), "err -2"),
        line(format!("dict_length {dict}"), "ok 90"),
    ]);
    script
}

#[tokio::test(flavor = "multi_thread")]
async fn what_one_language_writes_into_a_data_object_every_other_reads() {
    let folder = tempfile::tempdir().expect("a folder");
    let world = world(folder.path()).await;
    for language in reactors() {
        deploy(&world, language).await;
    }
    for writer in reactors() {
        for reader in reactors() {
            let prefix = format!("{}-{}", writer.guest, reader.guest);
            for script in write_script(&prefix) {
                does(&world, writer, &script).await;
            }
            does(&world, reader, &read_script(&prefix)).await;
        }
    }
    world.node.shutdown().await;
}

/// Functions of each language at once, additions of each.
const AT_ONCE: usize = 2;
const ADDITIONS: usize = 20_000;
const LOCKED_ADDITIONS: usize = 20;

#[tokio::test(flavor = "multi_thread")]
async fn no_addition_of_many_sandboxes_at_once_is_lost() {
    let folder = tempfile::tempdir().expect("a folder");
    let world = world(folder.path()).await;
    for language in reactors() {
        deploy(&world, language).await;
    }
    let (counter, locked) = (hex("s/counter"), hex("s/locked"));
    let adds = [
        line(format!("counter_add {counter} 1 {ADDITIONS}"), "ok #"),
        line(format!("locked_add {locked} 1 {LOCKED_ADDITIONS}"), "ok #"),
    ];
    let adders = reactors().cycle().take(AT_ONCE * reactors().count());
    join_all(adders.map(|language| does(&world, language, &adds))).await;
    let sum = |each: usize| format!("ok {}", each * AT_ONCE * reactors().count());
    for language in reactors() {
        let sums = [
            line(format!("counter_value {counter}"), sum(ADDITIONS)),
            line(format!("locked_add {locked} 0 1"), sum(LOCKED_ADDITIONS)),
        ];
        does(&world, language, &sums).await;
    }
    world.node.shutdown().await;
}
