//! The header for C and C++ in micro-VMs: the same calls, by number.

use hostcalls::{PAYLOAD, TABLE};
use sandbox::host::{HostCall, Type, number_of};

use super::c::signature;
use super::{calls, is_payload, notice};

/// Calls of the machine itself, which only its own guests make.
pub const MACHINE: [&str; 6] = [
    "vm_next", "vm_exit", "vm_grow", "vm_map", "vm_catch", "vm_trap",
];

/// `sdk/c/dunlin_vm_calls.h`
pub fn header() -> String {
    let mut text = format!("/* {} */\n", notice());
    text += "#ifndef DUNLIN_VM_CALLS_H\n#define DUNLIN_VM_CALLS_H\n\n";
    for name in MACHINE {
        text += &constant(&name[3..], number_of(name));
    }
    for call in PAYLOAD {
        text += &constant(call.name, call.number());
    }
    text += "\n";
    for call in calls().filter(|call| !is_payload(call)) {
        text += &inline(call);
    }
    text + "#endif\n"
}

fn constant(name: &str, number: u32) -> String {
    format!(
        "#define DUNLIN_VM_{} {number:#010x}u\n",
        name.to_uppercase()
    )
}

/// The words of a call, as its parameters give them.
fn words(call: &HostCall) -> Vec<String> {
    let words = call.params.iter().flat_map(|param| {
        let name = param.name;
        match param.ty {
            Type::U32 | Type::U64 => vec![name.to_owned()],
            Type::Str | Type::Bytes | Type::Out => {
                vec![format!("(uint64_t){name}"), format!("{name}_length")]
            }
        }
    });
    words.collect()
}

fn inline(call: &HostCall) -> String {
    const IN_REGISTERS: usize = 6;
    let signature = signature(call);
    let head = signature.trim_end_matches(';');
    let mut words = words(call);
    let number = format!("{:#010x}u", call.number());
    if words.len() > IN_REGISTERS {
        let all = words.join(", ");
        return format!(
            "static inline {head} {{\n  uint64_t words[] = {{{all}}};\n  \
             return dunlin_vm_ask({number}, (uint64_t)words, 0, 0, 0, 0, 0);\n}}\n\n"
        );
    }
    words.resize(IN_REGISTERS, "0".into());
    let all = words.join(", ");
    format!("static inline {head} {{\n  return dunlin_vm_ask({number}, {all});\n}}\n\n")
}

#[test]
fn no_two_calls_share_a_number() {
    let mut numbers: Vec<u32> = PAYLOAD.iter().chain(TABLE).map(HostCall::number).collect();
    numbers.extend(MACHINE.map(number_of));
    let all = numbers.len();
    numbers.sort_unstable();
    numbers.dedup();
    assert_eq!(numbers.len(), all);
}
