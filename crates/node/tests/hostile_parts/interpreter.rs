//! The guest that does what a script says.
//!
//! ```text
//!   0      words          RESULTS_AT  what the last calls gave      OUT_AT  room for bytes
//!   SCRIPT_AT  records: a call's number, and its arguments: a value, and a result to add to it
//! ```

use std::fmt::Write as _;

use hostcalls::{PAYLOAD, TABLE};
use sandbox::host::{HostCall, Type};

/// Where scripts begin, and how long a record is.
pub const SCRIPT_AT: u64 = 1_572_864;
pub const RECORD_BYTES: u64 = 8 + ARGUMENTS_MAX as u64 * ARGUMENT_BYTES;
/// Most arguments of a call, as a core module passes them.
pub const ARGUMENTS_MAX: usize = 8;
const ARGUMENT_BYTES: u64 = 16;
/// Where results are: slot 0 stays zero, the others take turns. In place of an error is
/// [`OUT_AT`], so that who uses it as an address is not ended by it.
pub const RESULTS_AT: u64 = 2048;
pub const RESULT_SLOTS: u64 = 16;
pub const OUT_AT: u64 = 4096;
pub const OUT_BYTES: u64 = 4096;
/// What is at the start of the guest's memory.
pub const WORDS: &str = "keyotherselfa/b/ck\u{7f}";

/// What a record does beside calling: it goes on numbering where the calls end.
#[derive(Clone, Copy, Debug)]
pub enum Deed {
    /// Loads 8 bytes from an address.
    Peek,
    /// Stores 8 bytes at an address.
    Poke,
    /// Sets up to a mebibyte to one byte.
    Fill,
    /// Copies up to a mebibyte.
    Copy,
    /// Makes the memory up to 255 pages longer.
    Grow,
}

impl Deed {
    pub const ALL: [Deed; 5] = [Deed::Peek, Deed::Poke, Deed::Fill, Deed::Copy, Deed::Grow];

    /// Its number in a record.
    pub fn number(self) -> u64 {
        (calls().count() + self as usize) as u64
    }

    /// Its code; leaves a 64-bit number.
    fn code(self) -> String {
        let (a, b, c) = (argument(1, "i32"), argument(2, "i32"), argument(3, "i32"));
        let length = format!("(i32.and {c} (i32.const 0xfffff))");
        match self {
            Deed::Peek => format!("(i64.load {a})"),
            Deed::Poke => format!("(i64.store {a} {}) (i64.const 0)", argument(2, "i64")),
            Deed::Fill => format!("(memory.fill {a} {b} {length}) (i64.const 0)"),
            Deed::Copy => format!("(memory.copy {a} {b} {length}) (i64.const 0)"),
            Deed::Grow => {
                format!("(i64.extend_i32_s (memory.grow (i32.and {a} (i32.const 0xff))))")
            }
        }
    }
}

/// Every call of a core module, in the order of their numbers.
pub fn calls() -> impl Iterator<Item = &'static HostCall> {
    TABLE.iter().chain(PAYLOAD)
}

/// The types of a call's arguments as a core module passes them.
fn lowered(call: &HostCall) -> Vec<&'static str> {
    let types = call.params.iter().map(|param| param.ty);
    types
        .flat_map(|ty| match ty {
            Type::U32 => vec!["i32"],
            Type::U64 => vec!["i64"],
            Type::Str | Type::Bytes | Type::Out => vec!["i32", "i32"],
        })
        .collect()
}

/// Argument `at` of the record, counted from 1, of type `ty`.
fn argument(at: usize, ty: &str) -> String {
    let value = 8 + (at as u64 - 1) * ARGUMENT_BYTES;
    let slot = value + 8;
    let slots = (RESULT_SLOTS - 1) * 8;
    let sum = format!(
        "(i64.add (i64.load offset={value} (local.get $at))
           (i64.load offset={RESULTS_AT}
             (i32.and (i32.load offset={slot} (local.get $at)) (i32.const {slots}))))"
    );
    match ty {
        "i32" => format!("(i32.wrap_i64 {sum})"),
        _ => sum,
    }
}

/// What a call gives: those of the table all give 64 bits.
fn result(call: &HostCall) -> &'static str {
    match (call.interface, call.result) {
        (_, "nothing") => "",
        ("payload", _) => "i32",
        _ => "i64",
    }
}

/// The guest, as text.
pub fn interpreter() -> String {
    let (mut imports, mut cases) = (String::new(), String::new());
    for (number, call) in calls().enumerate() {
        let (name, params, gives) = (call.name, lowered(call), result(call));
        let types = params.join(" ");
        writeln!(
            imports,
            r#"(import "dunlin" "{name}" (func ${name} (param {types}) (result {gives})))"#
        )
        .expect("text");
        let arguments = (1..).zip(&params).map(|(at, ty)| argument(at, ty));
        let called = format!("(call ${name} {})", arguments.collect::<String>());
        let code = match gives {
            "" => format!("{called} (i64.const 0)"),
            "i32" => format!("(i64.extend_i32_s {called})"),
            _ => called,
        };
        cases += &case(number as u64, &code);
    }
    for deed in Deed::ALL {
        cases += &case(deed.number(), &deed.code());
    }
    format!(
        r#"(module {imports}
  (memory (export "memory") 32)
  (data (i32.const 0) "{words}")
  (func (export "handle") (result i32)
    (local $at i32) (local $end i32) (local $call i32) (local $slot i32) (local $result i64)
    (local.set $at (i32.const {SCRIPT_AT}))
    (local.set $end (i32.add (local.get $at)
      (call $input_read (i32.const 0) (local.get $at) (call $input_size))))
    (block $done (loop $next
      (br_if $done (i32.ge_u (local.get $at) (local.get $end)))
      (local.set $call (i32.load (local.get $at)))
      {cases}
      (local.set $slot (i32.add (local.get $slot) (i32.const 8)))
      (if (i32.eq (local.get $slot) (i32.const {slots}))
        (then (local.set $slot (i32.const 8))))
      (if (i64.lt_s (local.get $result) (i64.const 0))
        (then (local.set $result (i64.const {OUT_AT}))))
      (i64.store offset={RESULTS_AT} (local.get $slot) (local.get $result))
      (local.set $at (i32.add (local.get $at) (i32.const {RECORD_BYTES})))
      (br $next)))
    (i32.const 0)))"#,
        words = WORDS.replace('\u{7f}', "\\7f"),
        slots = RESULT_SLOTS * 8,
    )
}

fn case(number: u64, code: &str) -> String {
    format!(
        "(if (i32.eq (local.get $call) (i32.const {number}))
           (then (local.set $result (block (result i64) {code}))))\n"
    )
}
