//! What components may import.

use wasmtime::Engine;
use wasmtime::component::{HasData, Linker, ResourceTable};
use wasmtime_wasi_io::bindings::wasi::io;

use super::engine::Flavour;
use super::guest::Guest;

/// The versions of WASI that the linker's interfaces carry; guests may ask for any that is
/// compatible with them.
pub(super) const OFFERED: [(&str, &str); 2] = [("0.2.", "0.2.12"), ("0.3.", "0.3.0")];

/// Everything that is offered on an engine of this flavour. Sockets, files and outgoing requests
/// are there, so that programs that name them load; what is not granted is refused when it is used.
pub(crate) fn linker(engine: &Engine, flavour: Flavour) -> wasmtime::Result<Linker<Guest>> {
    let mut linker = Linker::new(engine);
    wasmtime_wasi::p2::add_to_linker_async(&mut linker)?;
    add_io(&mut linker)?;
    wasmtime_wasi_http::p2::add_only_http_to_linker_async(&mut linker)?;
    if flavour == Flavour::Concurrent {
        wasmtime_wasi::p3::add_to_linker(&mut linker)?;
        wasmtime_wasi_http::p3::add_to_linker(&mut linker)?;
    }
    Ok(linker)
}

/// Offers `wasi:io` by the guest's table alone, in place of what goes through its surroundings: so
/// a guest that only streams never has any made.
fn add_io(linker: &mut Linker<Guest>) -> wasmtime::Result<()> {
    linker.allow_shadowing(true);
    io::error::add_to_linker::<_, Table>(linker, Guest::table)?;
    io::poll::add_to_linker::<_, Table>(linker, Guest::table)?;
    io::streams::add_to_linker::<_, Table>(linker, Guest::table)?;
    linker.allow_shadowing(false);
    Ok(())
}

struct Table;

impl HasData for Table {
    type Data<'a> = &'a mut ResourceTable;
}

/// Whether `linker` offers `function` of the interface `import`.
pub(super) fn offers(linker: &Linker<Guest>, import: &str, function: &str) -> bool {
    let mut probe = linker.clone();
    let name = offered_name(import);
    let defined = probe.instance(&name).and_then(|mut interface| {
        interface.func_new(function, |_, _, _, _| Err(wasmtime::Error::msg("a probe")))
    });
    // A linker takes no second definition of a name: that it takes this one shows that the name
    // was free, which it has no other way to ask.
    defined.is_err()
}

/// The name under which the linker has `import`: in its own patch version.
fn offered_name(import: &str) -> String {
    let Some((interface, version)) = import.split_once('@') else {
        return import.to_owned();
    };
    for (compatible, offered) in OFFERED {
        if version.starts_with(compatible) && !version.contains('-') {
            return format!("{interface}@{offered}");
        }
    }
    import.to_owned()
}
