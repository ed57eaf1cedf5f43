//! Uses files through the standard library, for the tests. `check` exercises it; `read PATH` prints
//! a file, `write PATH` puts the input there, `list PATH` prints names, `fill PATH` writes until it
//! fails and prints how much that was.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Read, Seek, SeekFrom, Write};

fn main() -> io::Result<()> {
    let args: Vec<_> = std::env::args().skip(1).collect();
    let path = args.get(1).map_or("/", String::as_str);
    match args.first().map(String::as_str) {
        Some("read") => io::stdout().write_all(&fs::read(path)?),
        Some("write") => {
            let mut input = Vec::new();
            io::stdin().read_to_end(&mut input)?;
            fs::write(path, input)
        }
        Some("list") => list(path),
        Some("fill") => fill(path),
        _ => check(),
    }
}

fn list(path: &str) -> io::Result<()> {
    let mut names = Vec::new();
    for entry in fs::read_dir(path)? {
        names.push(entry?.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    println!("{}", names.join(" "));
    Ok(())
}

fn fill(path: &str) -> io::Result<()> {
    let (mut file, mut bytes) = (File::create(path)?, 0);
    loop {
        match file.write(&[7; 10_000]) {
            Ok(count) => bytes += count,
            Err(error) => {
                println!("{bytes} {:?}", error.kind());
                return Ok(());
            }
        }
    }
}

fn check() -> io::Result<()> {
    fs::create_dir_all("/area/deep")?;
    fs::write("/area/a", "hello")?;
    let mut file = OpenOptions::new().read(true).append(true).open("/area/a")?;
    file.write_all(b" world")?;
    file.seek(SeekFrom::Start(6))?;
    let mut text = String::new();
    file.read_to_string(&mut text)?;
    assert_eq!(text, "world");
    file.set_len(5)?;
    assert_eq!(fs::read_to_string("/area/a")?, "hello");
    assert_eq!(fs::copy("/area/a", "/area/deep/b")?, 5);
    fs::rename("/area/deep/b", "/area/c")?;
    assert_eq!(fs::metadata("/area/c")?.len(), 5);
    assert!(fs::metadata("/area")?.is_dir());
    fs::rename("/area/c", "/area/d")?;
    assert!(!fs::exists("/area/c")?);
    assert_eq!(fs::read("/area/d")?, b"hello");
    let big: Vec<u8> = (0..300_000_u32).map(|n| n as u8).collect();
    fs::write("/area/big", &big)?;
    assert_eq!(fs::read("/area/big")?, big);
    for (found, wanted) in [
        (fs::read("/area/none").map(|_| ()), ErrorKind::NotFound),
        (fs::create_dir("/area"), ErrorKind::AlreadyExists),
    ] {
        assert_eq!(found.map_err(|error| error.kind()), Err(wanted));
    }
    // Kinds that std does not tell apart on every target.
    assert!(fs::remove_dir("/area").is_err());
    assert!(fs::read("/area/d/e").is_err());
    assert!(fs::read("/area").is_err());
    assert!(fs::read("/../etc/passwd").is_err());
    fs::remove_dir_all("/area")?;
    println!("ok");
    Ok(())
}
