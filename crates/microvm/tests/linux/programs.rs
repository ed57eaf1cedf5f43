//! Programs of every kind.

use std::time::Duration;

use microvm::linux::{End, Exit};

use crate::support::{MIB, Run, build, package, run, rust};

fn with<'a>(args: &'a [&'a str], input: &'a str) -> Run<'a> {
    Run {
        args,
        input: input.as_bytes(),
        ..Run::default()
    }
}

#[test]
fn a_c_program_reads_writes_and_exits_as_it_says() {
    for compiler in ["gcc", "musl-gcc"] {
        let program = build("hello.c", compiler, &[]);
        let env = &["NAME=value"];
        let asked = Run {
            env,
            ..with(&["program", "one", "two"], "hello world")
        };
        let Some(ran) = run(&program, &asked) else {
            return;
        };
        assert_eq!(ran.code(), 2, "{}", ran.text());
        assert_eq!(ran.reply, b"HELLO WORLD");
        assert_eq!(ran.log, b"arg one\narg two\nname value\n");
        assert_eq!(ran.unknown, []);
    }
}

#[test]
fn a_thread_that_is_confined_runs_programs() {
    let program = build("threads.c", "gcc", &["-pthread"]);
    let confined = std::thread::spawn(move || {
        microvm::confine::this_thread().unwrap();
        run(&program, &with(&["program"], "")).map(|ran| ran.reply())
    });
    if let Some(reply) = confined.join().unwrap() {
        assert!(reply.starts_with("160000 120\n"), "{reply}");
    }
}

#[test]
fn busybox_runs_as_debian_ships_it() {
    let program = std::fs::read("/bin/busybox").unwrap();
    let nothing = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855  -\n";
    let count = "x=3; while [ $x -gt 0 ]; do echo $x; x=$((x-1)); done; pwd";
    let files = "echo data > /tmp/f; read y < /tmp/f; echo got $y; cd /tmp; echo *";
    for (args, input, expected) in [
        (&["echo", "hi"][..], "", "hi\n"),
        (&["sort", "-n"], "10\n9\n100\n", "9\n10\n100\n"),
        (&["wc", "-c"], "12345", "5\n"),
        (&["sha256sum"], "", nothing),
        (
            &["awk", "{ s += $1 } END { print s }"],
            "1\n2\n39\n",
            "42\n",
        ),
        (&["sed", "s/a/b/g"], "banana\n", "bbnbnb\n"),
        (&["dc", "-e", "6 7 * p"], "", "42\n"),
        (&["sh", "-c", count], "", "3\n2\n1\n/\n"),
        (&["sh", "-c", files], "", "got data\nf\n"),
        (&["ls", "-l", "/tmp"], "", "total 0\n"),
        (&["id", "-u"], "", "1000\n"),
    ] {
        let args = [&["busybox"], args].concat();
        let Some(ran) = run(&program, &with(&args, input)) else {
            return;
        };
        assert_eq!(ran.reply(), expected, "{args:?}");
    }
}

#[test]
fn a_cpp_program_streams_and_throws() {
    let program = build("exceptions.cpp", "g++", &["-std=c++17"]);
    let Some(ran) = run(&program, &with(&["program"], "b a b")) else {
        return;
    };
    let expected = "a=1\nb=2\ncaught from the depth\nout of range\n499500\n";
    assert_eq!(ran.reply(), expected);
}

#[test]
fn threads_share_wait_and_are_refused_when_there_are_too_many() {
    for compiler in ["gcc", "musl-gcc"] {
        let program = build("threads.c", compiler, &["-pthread"]);
        let Some(ran) = run(&program, &with(&["program"], "")) else {
            return;
        };
        let expected = "160000 120\nturn 0\ntimed out 1\nmade some 1, refused some 1\n";
        assert_eq!(ran.reply(), expected, "{compiler}");
        eprintln!("{compiler}: {}", String::from_utf8_lossy(&ran.log));
    }
}

const SIGNALS: &str = "raised 1 3\nblocked 1 then 1\nnull 1 at 0x8\ndivide 1\nillegal 1\n\
                       readonly 1\noverflow 1\nrepaired x\npipe 1 1 1\nalarm in a loop 1\n\
                       interrupted -1 1\npaused 1\nawaited 1\n";

#[test]
fn signals_reach_their_handlers() {
    for compiler in ["gcc", "musl-gcc"] {
        let program = build("signals.c", compiler, &["-pthread", "-w"]);
        let Some(ran) = run(&program, &with(&["program"], "")) else {
            return;
        };
        assert_eq!(ran.reply(), SIGNALS, "{compiler}");
    }
}

#[test]
fn a_process_ends_as_its_last_signal_or_fault_says() {
    let program = build("signals.c", "gcc", &["-pthread", "-w"]);
    for (last, signal) in [("abort", 6), ("term", 15)] {
        let Some(ran) = run(&program, &with(&["program", last], "")) else {
            return;
        };
        assert!(
            matches!(ran.end, End::Exit(Exit::Signal(found)) if found == signal),
            "{ran:?}"
        );
    }
    for (last, vector) in [("null", 14), ("divide", 0)] {
        let Some(ran) = run(&program, &with(&["program", last], "")) else {
            return;
        };
        assert!(
            matches!(&ran.end, End::Fault(fault) if fault.vector == vector),
            "{ran:?}"
        );
    }
}

#[test]
fn nothing_outlives_its_deadline() {
    let program = build("signals.c", "gcc", &["-pthread", "-w"]);
    for last in ["loop", "sleep"] {
        let time = Duration::from_millis(300);
        let args = ["program", last];
        let asked = Run {
            time,
            ..with(&args, "")
        };
        let Some(ran) = run(&program, &asked) else {
            return;
        };
        assert!(matches!(ran.end, End::Deadline), "{ran:?}");
    }
}

#[test]
fn a_call_that_is_not_offered_is_counted_by_name() {
    let program = build("signals.c", "gcc", &["-pthread", "-w"]);
    let Some(ran) = run(&program, &with(&["program", "fork"], "")) else {
        return;
    };
    assert_eq!(ran.reply(), format!("{SIGNALS}fork -1 1\n"));
    assert_eq!(ran.unknown, [("clone".to_owned(), 1)]);
}

#[test]
fn pipes_counters_timers_and_sockets_are_waited_for() {
    for compiler in ["gcc", "musl-gcc"] {
        let program = build("events.c", compiler, &["-pthread", "-w"]);
        let Some(ran) = run(&program, &with(&["program"], "")) else {
            return;
        };
        let expected = "nothing 0\nwoken 1 with 7\nlevel 1\nedge 1 once 0 again 1\n\
                        counted 2 then 1\ntimer 1 more than one 1\nselect 0 1 readable 3\n\
                        read 3 then 0\nconnect 0\necho hELLO\nend 0\nrefused 1\ndenied 1\n\
                        messages 3 6\nnone 1\n";
        assert_eq!(ran.reply(), expected, "{compiler}");
    }
}

#[test]
fn files_are_as_on_linux() {
    let program = build("files.c", "gcc", &["-w"]);
    let Some(ran) = run(&program, &with(&["program"], "")) else {
        return;
    };
    let expected = "read one\nsize 18 mode 100644 links 1\nmapped line one file l\nshared 1\n\
                    writev 5\ntruncated 20\nmoved -1 0\nentries 4 cwd /tmp\nrmdir -1 1\n\
                    unlinked line rmdir 0\nexe /bin/function\nstacks 1\nrandom 1\noutside 1\n\
                    tty 0\nquota 1 1\nhuge 1\nslept 1 1\n";
    assert_eq!(ran.reply(), expected);
}

#[test]
fn a_rust_program_uses_its_standard_library() {
    let program = rust("standard.rs");
    let args = ["program", "x"];
    let Some(ran) = run(&program, &with(&args, "b a b")) else {
        return;
    };
    let expected = "[(\"a\", 1), (\"b\", 2)]\n13986000\nby channel\ntrue\n\
                    [\"b\", \"copy\"] contents\nOVER LOOPBACK\n[\"program\", \"x\"]\ntrue\n";
    assert_eq!(ran.reply(), expected, "{}", ran.text());
    let asked = Run {
        env: &["PANIC=1"],
        memory_bytes: 32 * MIB,
        ..with(&args, "")
    };
    let Some(ran) = run(&program, &asked) else {
        return;
    };
    assert_eq!(ran.code(), 101, "{}", ran.text());
}

#[test]
fn a_process_connects_to_what_its_function_was_granted() {
    use std::io::{BufRead, BufReader, Write};
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port().to_string();
    let server = std::thread::spawn(move || {
        for stream in listener.incoming().take(3) {
            let mut stream = stream.unwrap();
            let mut line = String::new();
            BufReader::new(&stream).read_line(&mut line).unwrap();
            std::thread::sleep(Duration::from_millis(5));
            stream.write_all(line.to_uppercase().as_bytes()).unwrap();
        }
    });
    let address = format!("127.0.0.1:{port}");
    let name = format!("localhost:{port}");
    let mut met = 0;
    for (compiler, host, grant, expected) in [
        ("musl-gcc", "127.0.0.1", address.as_str(), "HELLO\n"),
        ("musl-gcc", "localhost", &name, "HELLO\n"),
        ("gcc", "127.0.0.1", &name, "HELLO\n"),
        (
            "gcc",
            "127.0.0.1",
            "example.com",
            "not connected: Connection refused\n",
        ),
        (
            "gcc",
            "127.0.0.1",
            "127.0.0.1:1",
            "not connected: Connection refused\n",
        ),
        (
            "musl-gcc",
            "10.1.2.3",
            "*",
            "not connected: Permission denied\n",
        ),
    ] {
        let program = build("fetch.c", compiler, &["-w"]);
        let args = ["program", host, &port];
        let asked = Run {
            egress: &[grant],
            ..with(&args, "")
        };
        let Some(ran) = run(&program, &asked) else {
            return;
        };
        assert_eq!(ran.reply(), expected, "{compiler} {host} {grant}");
        met += usize::from(expected == "HELLO\n");
    }
    assert_eq!(met, 3);
    server.join().unwrap();
}

#[test]
fn a_tokio_program_runs_many_tasks_on_many_threads() {
    let program = package("async");
    let Some(ran) = run(&program, &with(&["program"], "input")) else {
        return;
    };
    assert_eq!(ran.reply(), "700 45 input\n", "{}", ran.text());
    assert_eq!(ran.unknown, []);
}
