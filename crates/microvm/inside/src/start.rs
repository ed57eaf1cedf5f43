//! From what the host gives to an instance, and from there one call after the other.

use alloc::format;
use core::convert::Infallible;
use core::ptr::NonNull;

use wasmtime::{Error, Instance, Linker, Module, Result, Store, TypedFunc, bail};

use crate::abi::{self, Given};
use crate::calls::{self, Guest};
use crate::engine;

/// A function that a call enters.
enum Entry {
    Unit(TypedFunc<(), ()>),
    Code(TypedFunc<(), i32>),
}

impl Entry {
    fn of(store: &mut Store<Guest>, instance: &Instance, name: &str) -> Option<Self> {
        let function = instance.get_func(&mut *store, name)?;
        match function.typed(&*store) {
            Ok(typed) => Some(Self::Code(typed)),
            Err(_) => function.typed(&*store).ok().map(Self::Unit),
        }
    }

    fn call(&self, store: &mut Store<Guest>) -> Result<i32> {
        match self {
            Self::Unit(entry) => entry.call(store, ()).map(|()| 0),
            Self::Code(entry) => entry.call(store, ()),
        }
    }
}

/// Loads the module, initialises it, and answers calls for as long as there are any.
pub fn run(given: &Given) -> Result<Infallible> {
    if !given.is_known() {
        bail!("the host gives what this runtime does not know");
    }
    let engine = engine::new(given)?;
    let Some(code) = NonNull::new(given.code()) else {
        bail!("there is no code");
    };
    // SAFETY: the host's own compiler made it from a valid module; it stays where it is, and nobody
    // but the module writes to it.
    let module = unsafe { Module::deserialize_raw(&engine, code)? };
    let mut linker = Linker::new(&engine);
    calls::offer(&mut linker, given)?;
    let mut store = Store::new(&engine, Guest::new(given));
    // Of what does not fit, the outer error says which import it is.
    let fitted = linker.instantiate_pre(&module);
    let fitted = fitted.map_err(|error| Error::msg(format!("{error:#}")))?;
    let instance = fitted.instantiate(&mut store)?;
    store.data_mut().memory = instance.get_memory(&mut store, calls::MEMORY);
    for name in ["_initialize", "init"] {
        if let Some(entry) = Entry::of(&mut store, &instance, name) {
            let code = entry.call(&mut store)?;
            if code != 0 {
                abi::exit(code);
            }
        }
    }
    let Some(handle) = Entry::of(&mut store, &instance, "handle") else {
        bail!("it does not export the function `handle`");
    };
    let mut code = 0;
    loop {
        store.data_mut().page = abi::next(code);
        code = match handle.call(&mut store) {
            Ok(code) => code,
            Err(error) => crate::trap::end(&error),
        };
    }
}
