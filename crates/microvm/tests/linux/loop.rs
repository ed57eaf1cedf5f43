//! What a program of Rust's standard library prepares before it waits for its input.

use std::io::{Read, Write};
use std::sync::mpsc;
use std::time::Instant;

fn main() {
    let begun = Instant::now();
    let squares: Vec<u64> = (0..1000).map(|n| n * n).collect();
    std::fs::write("/tmp/table", "from before").unwrap();
    let (ask, asked) = mpsc::channel::<usize>();
    let (tell, told) = mpsc::channel();
    let thread = std::thread::spawn(move || {
        for at in asked {
            tell.send(squares[at]).unwrap();
        }
    });
    let mut input = String::new();
    std::io::stdin().read_to_string(&mut input).unwrap();
    for word in input.split_whitespace() {
        ask.send(word.parse().unwrap()).unwrap();
        println!("{}", told.recv().unwrap());
    }
    drop(ask);
    thread.join().unwrap();
    println!("{}", std::fs::read_to_string("/tmp/table").unwrap());
    std::fs::write("/tmp/table", "changed").unwrap();
    println!("{}", begun.elapsed().as_nanos() > 0);
    std::io::stdout().flush().unwrap();
}
