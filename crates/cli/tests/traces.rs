//! Traces reach a collector where `OTEL_*` asks for it.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod support;

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::process::{Command, Stdio};

use support::command;
use support::guests::ECHO;

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

/// Reads one HTTP/1.1 message: its first line, its headers in lower case, its body.
fn read(stream: &TcpStream) -> (String, String, Vec<u8>) {
    let mut reader = BufReader::new(stream);
    let (mut first, mut headers, mut length) = (String::new(), String::new(), 0);
    reader.read_line(&mut first).unwrap();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).unwrap();
        if line == "\r\n" || line.is_empty() {
            break;
        }
        let line = line.to_ascii_lowercase();
        if let Some(value) = line.strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
        headers.push_str(&line);
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).unwrap();
    (first, headers, body)
}

fn up(data: &std::path::Path, collector: &str) -> Command {
    let words = [
        "up",
        "--listen",
        "127.0.0.1:0",
        "--admin",
        "127.0.0.1:0",
        "--data",
    ];
    let mut up = command(&words);
    up.arg(data)
        .env("OTEL_EXPORTER_OTLP_ENDPOINT", collector)
        .env("OTEL_BSP_SCHEDULE_DELAY", "10")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    up
}

#[test]
fn an_invocation_is_a_span_of_its_callers_trace() {
    let folder = tempfile::tempdir().unwrap();
    let collector = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}", collector.local_addr().unwrap());
    let mut node = up(&folder.path().join("data"), &endpoint).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(node.stdout.take().unwrap())
        .read_line(&mut line)
        .unwrap();
    let card: serde_json::Value = serde_json::from_str(&line).unwrap();

    let file = folder.path().join("echo.wasm");
    std::fs::write(&file, wat::parse_str(ECHO).unwrap()).unwrap();
    let mut deploy = command(&["deploy", "--app", "e2e", "--name", "echo"]);
    deploy
        .arg(&file)
        .env("DUNLIN_ADMIN", card["admin_addr"].as_str().unwrap());
    support::finish(&mut deploy, b"").ok();

    let mut call = TcpStream::connect(card["data_addr"].as_str().unwrap()).unwrap();
    write!(
        call,
        "POST /e2e/echo HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\
         traceparent: 00-{TRACE}-00f067aa0ba902b7-01\r\n\r\n"
    )
    .unwrap();
    let (status, headers, _) = read(&call);
    assert!(status.contains("200"), "{status}");
    let sent_back = headers
        .lines()
        .find_map(|line| line.strip_prefix("traceparent: 00-"));
    let sent_back = sent_back.expect("a traceparent");
    assert!(sent_back.starts_with(TRACE), "{sent_back}");
    let span = sent_back.split('-').nth(1).expect("a span");

    let (export, _) = collector.accept().unwrap();
    let (first, headers, body) = read(&export);
    assert!(first.starts_with("POST /v1/traces "), "{first}");
    assert!(headers.contains("application/x-protobuf"), "{headers}");
    let holds = |hex: &str| {
        let bytes: Vec<u8> = (0..hex.len())
            .step_by(2)
            .map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap())
            .collect();
        body.windows(bytes.len()).any(|window| window == bytes)
    };
    assert!(holds(TRACE) && holds(span) && holds("00f067aa0ba902b7"));
    assert!(body.windows(8).any(|window| window == b"e2e/echo"));
    node.kill().unwrap();
    node.wait().unwrap();
}
