//! The module for Rust: raw imports, and a safe function for each.

use sandbox::host::{Errno, HostCall, Param, Type};

use super::{calls, doc, is_payload, is_silent, list, notice, pascal, wrap};

/// `sdk/rust/src/calls.rs`
pub fn module() -> String {
    let mut text = format!(
        "//! {}\n//!\n//! The calls as they are; `state`, `chain` and `objects` are made of them.\n\n",
        notice()
    );
    text += "use core::fmt;\n\n";
    text += &errors();
    text += &raw();
    for call in calls().filter(|call| !is_payload(call)) {
        text += &safe(call);
    }
    text
}

/// The safe function of a call, as Rust declares it.
pub fn signature(call: &HostCall) -> String {
    let params: Vec<String> = call.params.iter().map(safe_param).collect();
    let open = format!("pub fn {}(", call.name);
    list(&open, &params, ") -> Result<u64, Error>", "")
}

fn safe_param(param: &Param) -> String {
    let ty = match param.ty {
        Type::U32 => "u32",
        Type::U64 => "u64",
        Type::Str => "&str",
        Type::Bytes => "&[u8]",
        Type::Out => "&mut [u8]",
    };
    format!("{}: {ty}", param.name)
}

fn raw_params(call: &HostCall) -> Vec<String> {
    let number = if is_payload(call) { "i32" } else { "u32" };
    let parts = call.params.iter().flat_map(|param| {
        let name = param.name;
        let length = match is_payload(call) {
            true => format!("{name}_length: i32"),
            false => format!("{name}_length: usize"),
        };
        match param.ty {
            Type::U32 => vec![format!("{name}: {number}")],
            Type::U64 => vec![format!("{name}: u64")],
            Type::Str | Type::Bytes => vec![format!("{name}: *const u8"), length],
            Type::Out => vec![format!("{name}: *mut u8"), length],
        }
    });
    parts.collect()
}

/// The import of a call, as Rust declares it.
pub fn raw_signature(call: &HostCall) -> String {
    imported(call, "").replacen("pub fn", "pub unsafe fn", 1)
}

fn imported(call: &HostCall, indent: &str) -> String {
    let close = match (is_payload(call), is_silent(call)) {
        (true, true) => ");",
        (true, false) => ") -> i32;",
        (false, _) => ") -> i64;",
    };
    list(
        &format!("pub fn {}(", call.name),
        &raw_params(call),
        close,
        indent,
    )
}

fn raw() -> String {
    let mut text = String::from(
        "/// The imports themselves.\npub mod raw {\n    \
         #[link(wasm_import_module = \"dunlin\")]\n    unsafe extern \"C\" {\n",
    );
    for call in calls() {
        text += &wrap(call.doc, "        /// ");
        text += &imported(call, "        ");
        text.push('\n');
    }
    text + "    }\n}\n"
}

/// What is written over the safe function of a call.
pub fn heading(call: &HostCall) -> String {
    let errors: Vec<String> = call.errors.iter().map(|&it| variant(it)).collect();
    let mut text = String::from("\n");
    text += &wrap(&doc(call), "/// ");
    text += "///\n/// # Errors\n";
    text + &wrap(&format!("{}.", errors.join(", ")), "/// ")
}

fn safe(call: &HostCall) -> String {
    let mut text = heading(call);
    let args = call.params.iter().flat_map(|param| {
        let name = param.name;
        match param.ty {
            Type::U32 | Type::U64 => vec![name.to_owned()],
            Type::Str | Type::Bytes => vec![format!("{name}.as_ptr()"), format!("{name}.len()")],
            Type::Out => vec![format!("{name}.as_mut_ptr()"), format!("{name}.len()")],
        }
    });
    let args: Vec<String> = args.collect();
    text += &format!("{} {{\n", signature(call));
    text += "    // SAFETY: the node touches only the bytes of the slices that it is given.\n";
    text += &list(
        &format!("answer(unsafe {{ raw::{}(", call.name),
        &args,
        ") })",
        "    ",
    );
    text + "\n}\n"
}

fn variant(errno: Errno) -> String {
    format!("[`Error::{}`]", pascal(errno.as_str()))
}

/// The error of every call, and how an answer becomes one.
pub fn errors() -> String {
    let mut text = String::from(
        "/// Why a call failed.\n#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]\n\
         #[non_exhaustive]\npub enum Error {\n",
    );
    for errno in Errno::ALL {
        let name = pascal(errno.as_str());
        text += &format!("    /// {}\n    {name},\n", errno.doc());
    }
    text += "    /// An error that this crate is too old to know, by its number.\n    Other(i64),\n}\n\n";
    text += "impl Error {\n    /// The error of a negative answer.\n    #[must_use]\n    \
             pub const fn of(code: i64) -> Self {\n        match code {\n";
    for errno in Errno::ALL {
        let name = pascal(errno.as_str());
        text += &format!("            {} => Self::{name},\n", errno.code());
    }
    text += "            _ => Self::Other(code),\n        }\n    }\n\n";
    text += "    /// Its number, which is negative.\n    #[must_use]\n    \
             pub const fn code(self) -> i64 {\n        match self {\n";
    for errno in Errno::ALL {
        let name = pascal(errno.as_str());
        text += &format!("            Self::{name} => {},\n", errno.code());
    }
    text += "            Self::Other(code) => code,\n        }\n    }\n}\n\n";
    text += "impl fmt::Display for Error {\n    \
             fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {\n        \
             f.write_str(match self {\n";
    for errno in Errno::ALL {
        let (name, doc) = (pascal(errno.as_str()), errno.doc());
        text += &format!(
            "            Self::{name} => {:?},\n",
            doc.trim_end_matches('.')
        );
    }
    text += "            Self::Other(code) => return write!(f, \"error {code}\"),\n        \
             })\n    }\n}\n\nimpl core::error::Error for Error {}\n\n";
    text + "fn answer(code: i64) -> Result<u64, Error> {\n    \
            u64::try_from(code).map_err(|_| Error::of(code))\n}\n\n"
}
