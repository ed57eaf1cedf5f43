//! What a program finds on its stack when it begins (System V ABI for AMD64, 3.4.1).
//!
//! Before the environment there may be places for variables that come later: each is an empty text,
//! which names no variable.
//!
//! ```text
//!  rsp ▶ argc │ argv… │ 0 │ envp… │ 0 │ auxiliary vector │ padding │ strings, random bytes ◀ top
//! ```

use serde::{Deserialize, Serialize};

use super::errno::Errno;
use super::program::Program;

/// Most bytes of arguments and environment, with their pointers; a quarter of the stack, as on
/// Linux.
const BYTES_MAX: usize = 2 << 20;

const AT_NULL: u64 = 0;
const AT_PHDR: u64 = 3;
const AT_PHENT: u64 = 4;
const AT_PHNUM: u64 = 5;
const AT_PAGESZ: u64 = 6;
const AT_BASE: u64 = 7;
const AT_FLAGS: u64 = 8;
const AT_ENTRY: u64 = 9;
const AT_UID: u64 = 11;
const AT_EUID: u64 = 12;
const AT_GID: u64 = 13;
const AT_EGID: u64 = 14;
const AT_PLATFORM: u64 = 15;
const AT_HWCAP: u64 = 16;
const AT_CLKTCK: u64 = 17;
const AT_SECURE: u64 = 23;
const AT_RANDOM: u64 = 25;
const AT_HWCAP2: u64 = 26;
const AT_EXECFN: u64 = 31;
const AT_MINSIGSTKSZ: u64 = 51;

/// What a program begins with.
#[derive(Clone, Debug)]
pub struct Start<'a> {
    /// Its arguments, its own name first.
    pub args: &'a [Vec<u8>],
    /// Its environment, as `NAME=VALUE`.
    pub env: &'a [Vec<u8>],
    /// The program.
    pub program: &'a Program,
    /// Fresh random bytes.
    pub random: [u8; 16],
    /// Bytes that a signal's frame takes.
    pub signal_bytes: u64,
    /// Whether variables may come later.
    pub places: bool,
}

/// A stack that was built.
#[derive(Clone, Debug)]
pub struct Built {
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// Where they begin: the stack pointer.
    pub rsp: u64,
    /// Where the random bytes are.
    pub random_at: u64,
    /// Places for variables that come later.
    pub places: Option<Places>,
}

/// Places in an environment for variables that come later, and for their text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Places {
    /// Where the pointers are.
    pointers_at: u64,
    /// Where the text goes.
    text_at: u64,
}

/// Variables that there are places for, and bytes for their text.
const PLACES: usize = 64;
const TEXT_BYTES: usize = 16 << 10;

impl Places {
    /// What is to be written where for these variables; none if they do not fit.
    pub fn fill(&self, env: &[Vec<u8>]) -> Option<[(u64, Vec<u8>); 2]> {
        let (mut pointers, mut text) = (Vec::new(), Vec::new());
        for variable in env {
            if variable.contains(&0) {
                return None;
            }
            let at = self.text_at + text.len() as u64;
            pointers.extend_from_slice(&at.to_le_bytes());
            text.extend_from_slice(variable);
            text.push(0);
        }
        let fits = env.len() <= PLACES && text.len() <= TEXT_BYTES;
        fits.then_some([(self.pointers_at, pointers), (self.text_at, text)])
    }
}

/// The stack that ends at `top`.
pub fn build(start: &Start<'_>, top: u64) -> Result<Built, Errno> {
    let mut strings = Strings {
        bytes: Vec::new(),
        pointers: Vec::new(),
    };
    for text in start.args.iter().chain(start.env) {
        strings.add(text)?;
    }
    let platform = strings.bytes.len();
    strings.bytes.extend_from_slice(b"x86_64\0");
    let random = strings.bytes.len();
    strings.bytes.extend_from_slice(&start.random);
    let text = strings.bytes.len();
    if start.places {
        // One zero more, for the text that is empty.
        strings.bytes.resize(text + TEXT_BYTES + 1, 0);
    }

    let strings_at = (top - strings.bytes.len() as u64) & !15;
    let at = |offset: usize| strings_at + offset as u64;
    let mut words = vec![start.args.len() as u64];
    let (args, env) = strings.pointers.split_at(start.args.len());
    words.extend(args.iter().map(|offset| at(*offset)));
    words.push(0);
    let pointers = words.len() as u64 * 8;
    if start.places {
        words.extend([at(text + TEXT_BYTES); PLACES]);
    }
    words.extend(env.iter().map(|offset| at(*offset)));
    words.push(0);
    let name = args.first().map_or(at(platform), |offset| at(*offset));
    words.extend(auxiliary(start, at(platform), at(random), name));
    let words_bytes = words.len() as u64 * 8;
    let rsp = (strings_at - words_bytes) & !15;
    let mut bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
    bytes.resize((strings_at - rsp) as usize, 0);
    bytes.extend_from_slice(&strings.bytes);
    Ok(Built {
        bytes,
        rsp,
        random_at: at(random),
        places: start.places.then_some(Places {
            pointers_at: rsp + pointers,
            text_at: at(text),
        }),
    })
}

struct Strings {
    bytes: Vec<u8>,
    pointers: Vec<usize>,
}

impl Strings {
    fn add(&mut self, text: &[u8]) -> Result<(), Errno> {
        if text.contains(&0) {
            return Err(Errno::EINVAL);
        }
        self.pointers.push(self.bytes.len());
        self.bytes.extend_from_slice(text);
        self.bytes.push(0);
        if self.bytes.len() + self.pointers.len() * 8 > BYTES_MAX {
            return Err(Errno::E2BIG);
        }
        Ok(())
    }
}

fn auxiliary(start: &Start<'_>, platform: u64, random: u64, name: u64) -> Vec<u64> {
    /// Ticks of `times` in a second.
    const CLOCK_TICKS: u64 = 100;
    let program = start.program;
    let mut pairs = Vec::new();
    if let Some(headers) = program.headers_address {
        pairs.extend([
            (AT_PHDR, headers),
            (AT_PHENT, 56),
            (AT_PHNUM, program.header_count.into()),
        ]);
    }
    pairs.extend([
        (AT_PAGESZ, crate::layout::PAGE),
        (AT_BASE, 0),
        (AT_FLAGS, 0),
        (AT_ENTRY, program.entry),
        (AT_UID, super::process::USER.into()),
        (AT_EUID, super::process::USER.into()),
        (AT_GID, super::process::USER.into()),
        (AT_EGID, super::process::USER.into()),
        (AT_PLATFORM, platform),
        (AT_HWCAP, 0),
        (AT_HWCAP2, 0),
        (AT_CLKTCK, CLOCK_TICKS),
        (AT_SECURE, 0),
        (AT_RANDOM, random),
        (AT_EXECFN, name),
        (AT_MINSIGSTKSZ, start.signal_bytes),
        (AT_NULL, 0),
    ]);
    pairs
        .into_iter()
        .flat_map(|(key, value)| [key, value])
        .collect()
}

#[cfg(test)]
mod tests {
    use super::super::program::tests::program;
    use super::*;

    fn start<'a>(args: &'a [Vec<u8>], env: &'a [Vec<u8>], program: &'a Program) -> Start<'a> {
        Start {
            args,
            env,
            program,
            random: [7; 16],
            signal_bytes: 5120,
            places: false,
        }
    }

    #[test]
    fn everything_is_where_the_abi_says() {
        let (args, env) = (vec![b"prog".to_vec(), b"x".to_vec()], vec![b"A=b".to_vec()]);
        let top = 0x10_0000;
        let built = build(&start(&args, &env, &program()), top).unwrap();
        let Built { bytes, rsp, .. } = built;
        assert_eq!(rsp % 16, 0);
        assert!(rsp + bytes.len() as u64 <= top);
        let word = |index: usize| {
            let word = bytes[index * 8..index * 8 + 8].try_into().unwrap();
            u64::from_le_bytes(word)
        };
        let text = |at: u64| {
            let from = (at - rsp) as usize;
            let end = bytes[from..].iter().position(|byte| *byte == 0).unwrap();
            &bytes[from..from + end]
        };
        assert_eq!(word(0), 2);
        assert_eq!((text(word(1)), text(word(2))), (&b"prog"[..], &b"x"[..]));
        assert_eq!((word(3), text(word(4)), word(5)), (0, &b"A=b"[..], 0));
        let pairs: Vec<(u64, u64)> = (0..20)
            .map(|pair| (word(6 + pair * 2), word(7 + pair * 2)))
            .collect();
        let value = |key: u64| pairs.iter().find(|pair| pair.0 == key).unwrap().1;
        assert_eq!((value(AT_PHDR), value(AT_PHNUM)), (0x40_0040, 7));
        assert_eq!(value(AT_RANDOM), built.random_at);
        let random = (value(AT_RANDOM) - rsp) as usize;
        assert_eq!(bytes[random..random + 16], [7; 16]);
        assert_eq!(text(value(AT_EXECFN)), b"prog");
    }

    #[test]
    fn variables_that_come_later_are_found_before_the_others() {
        let (args, env) = (vec![b"prog".to_vec()], vec![b"A=b".to_vec()]);
        let program = program();
        let with_places = Start {
            places: true,
            ..start(&args, &env, &program)
        };
        let Built {
            mut bytes,
            rsp,
            places,
            ..
        } = build(&with_places, 0x10_0000).unwrap();
        let places = places.unwrap();
        let texts = |bytes: &[u8]| {
            let word = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap());
            let pointers = (24..).step_by(8).map(word).take_while(|at| *at != 0);
            let text = |at: u64| {
                let from = &bytes[(at - rsp) as usize..];
                let end = from.iter().position(|byte| *byte == 0).unwrap();
                String::from_utf8(from[..end].to_vec()).unwrap()
            };
            pointers
                .map(text)
                .filter(|text| !text.is_empty())
                .collect::<Vec<_>>()
        };
        assert_eq!(texts(&bytes), ["A=b"]);
        for (at, written) in places.fill(&[b"C=d".to_vec(), b"E=".to_vec()]).unwrap() {
            let from = (at - rsp) as usize;
            bytes[from..from + written.len()].copy_from_slice(&written);
        }
        assert_eq!(texts(&bytes), ["C=d", "E=", "A=b"]);
        assert!(places.fill(&vec![b"A=b".to_vec(); PLACES + 1]).is_none());
        assert!(places.fill(&[vec![b'a'; TEXT_BYTES]]).is_none());
    }

    #[test]
    fn too_much_is_refused_and_so_is_a_zero_within() {
        let long = vec![vec![b'a'; BYTES_MAX]];
        assert_eq!(
            build(&start(&long, &[], &program()), 1 << 30).unwrap_err(),
            Errno::E2BIG
        );
        let zero = vec![b"a\0b".to_vec()];
        assert_eq!(
            build(&start(&[], &zero, &program()), 1 << 30).unwrap_err(),
            Errno::EINVAL
        );
    }
}
