//! Finds the kind of a function from what its artifact exports.

use model::Kind;
use wasmparser::{ComponentExternalKind, Encoding, ExternalKind, Parser, Payload};

/// A component whose exports start with one of these is an http function.
const HTTP_EXPORTS: [&str; 2] = ["wasi:http/incoming-handler@", "wasi:http/handler@"];
/// A core module with this export is a reactor.
const REACTOR_EXPORT: &str = "handle";
/// What an executable holds that was built with the header for micro-VMs.
const VM_REACTOR_MARK: &[u8] = b"\0dunlin_vm_main\0";

/// The variable that every Lambda runtime finds its invocations by.
const LAMBDA_MARK: &[u8] = b"AWS_LAMBDA_RUNTIME_API";

/// The kind of `artifact`; what is neither http nor reactor is a command. Bytes that do not decode
/// are left for the node to refuse, which says more about them.
pub fn kind(artifact: &[u8]) -> Kind {
    if artifact.starts_with(b"\x7fELF") {
        let holds = |mark: &[u8]| artifact.windows(mark.len()).any(|window| window == mark);
        return match () {
            () if holds(VM_REACTOR_MARK) => Kind::Reactor,
            () if holds(LAMBDA_MARK) => Kind::Lambda,
            () => Kind::Command,
        };
    }
    inspect(artifact).ok().flatten().unwrap_or(Kind::Command)
}

fn inspect(artifact: &[u8]) -> wasmparser::Result<Option<Kind>> {
    // Components nest modules and components: only the outermost one's exports count.
    let mut depth = 0_u32;
    for payload in Parser::new(0).parse_all(artifact) {
        match payload? {
            Payload::Version { encoding, .. } => {
                depth += 1;
                if depth == 1 && encoding == Encoding::Module {
                    return module(artifact);
                }
            }
            Payload::End(_) => depth = depth.saturating_sub(1),
            Payload::ComponentExportSection(exports) if depth == 1 => {
                for export in exports {
                    let export = export?;
                    let http = HTTP_EXPORTS
                        .iter()
                        .any(|http| export.name.name.starts_with(http));
                    if http && export.kind == ComponentExternalKind::Instance {
                        return Ok(Some(Kind::Http));
                    }
                }
            }
            _ => {}
        }
    }
    Ok(None)
}

fn module(artifact: &[u8]) -> wasmparser::Result<Option<Kind>> {
    for payload in Parser::new(0).parse_all(artifact) {
        if let Payload::ExportSection(exports) = payload? {
            for export in exports {
                let export = export?;
                if export.name == REACTOR_EXPORT && export.kind == ExternalKind::Func {
                    return Ok(Some(Kind::Reactor));
                }
            }
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: Kind) {
        let wasm = wat::parse_str(text).expect("the test's module is valid");
        assert_eq!(kind(&wasm), expected, "{text}");
    }

    #[test]
    fn kinds_are_found_by_their_exports() {
        check("(module (func (export \"_start\")))", Kind::Command);
        check(
            "(module (func (export \"handle\") (result i32) i32.const 0))",
            Kind::Reactor,
        );
        check("(module (memory (export \"handle\") 1))", Kind::Command);
        check(
            "(component (instance $i) (export \"wasi:http/incoming-handler@0.2.3\" (instance $i)))",
            Kind::Http,
        );
        check(
            "(component (instance $i) (export \"wasi:http/handler@0.3.0\" (instance $i)))",
            Kind::Http,
        );
        check(
            "(component (instance $i) (export \"wasi:cli/run@0.2.0\" (instance $i)))",
            Kind::Command,
        );
        check(
            "(component (core module (func (export \"handle\") (result i32) i32.const 0)))",
            Kind::Command,
        );
    }

    #[test]
    fn an_executable_is_what_its_entry_or_its_interface_says() {
        assert_eq!(kind(b"\x7fELF..AWS_LAMBDA_RUNTIME_API.."), Kind::Lambda);
        assert_eq!(kind(b"\x7fELF...\0dunlin_vm_main\0"), Kind::Reactor);
        assert_eq!(kind(b"\x7fELF...\0main\0"), Kind::Command);
    }

    #[test]
    fn what_is_not_wasm_is_left_to_the_node() {
        for bytes in [
            &b""[..],
            b"not wasm",
            b"\0asm",
            b"\0asm\x01\0\0\0\x07\xff\xff",
        ] {
            assert_eq!(kind(bytes), Kind::Command);
        }
    }
}
