//! The module for Rust in micro-VMs: the same calls, by number.

use hostcalls::PAYLOAD;
use sandbox::host::{HostCall, Type, number_of};

use super::rust::{errors, heading, signature};
use super::vm::MACHINE;
use super::{calls, is_payload, list, notice};

/// `sdk/rust-vm/src/calls.rs`
pub fn module() -> String {
    let mut text = format!(
        "//! {}\n//!\n//! The calls as they are; `state` is made of them.\n\n",
        notice()
    );
    text += "use core::fmt;\n\nuse crate::machine::ask;\n\n";
    text += &errors();
    text += "/// Numbers of the calls that the machine itself and the payload have.\n";
    text += "pub(crate) mod number {\n";
    for name in ["vm_next", "vm_exit", "vm_grow", "vm_trap"] {
        assert!(MACHINE.contains(&name), "the machine has no {name}");
        text += &constant(name, number_of(name));
    }
    for call in PAYLOAD.iter().filter(|call| call.name != "input_size") {
        text += &constant(call.name, call.number());
    }
    text += "}\n";
    for call in calls().filter(|call| !is_payload(call)) {
        text += &asked(call);
    }
    text
}

fn constant(name: &str, number: u32) -> String {
    format!(
        "    pub const {}: u32 = {number:#010x};\n",
        name.to_uppercase()
    )
}

/// The words of a call, as its parameters give them.
fn words(call: &HostCall) -> Vec<String> {
    let words = call.params.iter().flat_map(|param| {
        let name = param.name;
        match param.ty {
            Type::U32 => vec![format!("u64::from({name})")],
            Type::U64 => vec![name.to_owned()],
            Type::Str | Type::Bytes => vec![
                format!("{name}.as_ptr() as u64"),
                format!("{name}.len() as u64"),
            ],
            Type::Out => vec![
                format!("{name}.as_mut_ptr() as u64"),
                format!("{name}.len() as u64"),
            ],
        }
    });
    words.collect()
}

fn asked(call: &HostCall) -> String {
    const IN_REGISTERS: usize = 6;
    let mut text = heading(call);
    text += &format!("{} {{\n", signature(call));
    let mut words = words(call);
    if words.len() > IN_REGISTERS {
        text += &list("let words = [", &words, "];", "    ");
        text += "\n";
        words = vec!["words.as_ptr() as u64".to_owned()];
    }
    words.resize(IN_REGISTERS, "0".into());
    text += &list("let args = [", &words, "];", "    ");
    text += "\n    // SAFETY: the node touches only the bytes of the slices that it is given.\n";
    text += &format!(
        "    answer(unsafe {{ ask({:#010x}, args) }})\n",
        call.number()
    );
    text + "}\n"
}
