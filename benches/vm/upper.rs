//! Replies with its input in capitals: a program of Rust's standard library as anybody writes it.

use std::io::{Read, Write};

fn main() {
    let mut body = Vec::new();
    std::io::stdin().read_to_end(&mut body).expect("an input");
    body.make_ascii_uppercase();
    std::io::stdout().write_all(&body).expect("somebody reads");
}
