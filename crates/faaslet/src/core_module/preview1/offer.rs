//! The imports of preview 1, each with its signature.

use std::time::Duration;

use wasmtime::{Caller, Linker};
use wasmtime_wasi::I32Exit;

use super::Preview1;
use super::abi::Code;
use super::fd::Buffers;
use super::guest::{Fail, Guest, Span};
use super::path::Opening;
use super::poll::{Poll, Polled, Since};
use crate::core_module::host::{self, Host, PREVIEW_1};

type Called<'a> = Caller<'a, Host>;
type Answer = wasmtime::Result<u32>;

/// Answers a call: 0, or the number of its error.
fn act(
    mut caller: Called<'_>,
    call: impl FnOnce(&mut Preview1, &mut Guest<'_>) -> Result<(), Fail>,
) -> Answer {
    answer(with(&mut caller, call))
}

fn answer(result: Result<(), Fail>) -> Answer {
    match result {
        Ok(()) => Ok(0),
        Err(Fail::Code(Code(code))) => Ok(code.into()),
        Err(Fail::End(error)) => Err(error),
    }
}

fn with<T>(
    caller: &mut Called<'_>,
    call: impl FnOnce(&mut Preview1, &mut Guest<'_>) -> Result<T, Fail>,
) -> Result<T, Fail> {
    // A guest without a memory has no pointer that is within it.
    let (bytes, host) = match host::memory(caller) {
        Ok(memory) => memory.data_and_store_mut(caller),
        Err(_) => (&mut [][..], caller.data_mut()),
    };
    let Some(wasi) = host.wasi.as_deref_mut() else {
        return Err(Code::NOSYS.into());
    };
    call(wasi, &mut Guest(bytes))
}

const fn span(at: u32, bytes: u32) -> Span {
    Span { at, bytes }
}

/// Offers all imports that never wait.
pub(in crate::core_module) fn offer(linker: &mut Linker<Host>) -> wasmtime::Result<()> {
    process(linker)?;
    descriptors(linker)?;
    standing(linker)?;
    reading(linker)?;
    paths(linker)?;
    names(linker)
}

fn process(linker: &mut Linker<Host>) -> wasmtime::Result<()> {
    let m = PREVIEW_1;
    linker.func_wrap(m, "args_get", |c: Called<'_>, at: u32, buffer: u32| {
        act(c, |w, g| w.args_get(g, at, buffer))
    })?;
    linker.func_wrap(
        m,
        "args_sizes_get",
        |c: Called<'_>, count: u32, bytes: u32| act(c, |w, g| w.args_sizes_get(g, count, bytes)),
    )?;
    linker.func_wrap(m, "environ_get", |c: Called<'_>, at: u32, buffer: u32| {
        act(c, |w, g| w.environ_get(g, at, buffer))
    })?;
    linker.func_wrap(
        m,
        "environ_sizes_get",
        |c: Called<'_>, count: u32, bytes: u32| act(c, |w, g| w.environ_sizes_get(g, count, bytes)),
    )?;
    linker.func_wrap(m, "clock_res_get", |c: Called<'_>, clock: u32, out: u32| {
        act(c, |w, g| w.clock_res_get(g, clock, out))
    })?;
    linker.func_wrap(
        m,
        "clock_time_get",
        |c: Called<'_>, clock: u32, _precision: u64, out: u32| {
            act(c, |w, g| w.clock_time_get(g, clock, out))
        },
    )?;
    linker.func_wrap(m, "random_get", |c: Called<'_>, at: u32, bytes: u32| {
        act(c, |w, g| w.random_get(g, at, bytes))
    })?;
    linker.func_wrap(m, "sched_yield", |_: Called<'_>| {
        std::thread::yield_now();
        0_u32
    })?;
    linker.func_wrap(
        m,
        "proc_exit",
        |_: Called<'_>, code: u32| -> wasmtime::Result<()> {
            Err(I32Exit(code.cast_signed()).into())
        },
    )?;
    // There is nobody to send a signal to, and no handler for one.
    linker.func_wrap(m, "proc_raise", |_: Called<'_>, _signal: u32| {
        u32::from(Code::NOTSUP.0)
    })?;
    Ok(())
}

fn descriptors(linker: &mut Linker<Host>) -> wasmtime::Result<()> {
    let m = PREVIEW_1;
    linker.func_wrap(
        m,
        "fd_advise",
        |c: Called<'_>, fd: u32, _offset: u64, _length: u64, advice: u32| {
            act(c, |w, _| w.fd_advise(fd, advice))
        },
    )?;
    linker.func_wrap(
        m,
        "fd_allocate",
        |c: Called<'_>, fd: u32, offset: u64, length: u64| {
            act(c, |w, _| w.fd_allocate(fd, offset, length))
        },
    )?;
    linker.func_wrap(m, "fd_close", |c: Called<'_>, fd: u32| {
        act(c, |w, _| w.fd_close(fd))
    })?;
    linker.func_wrap(m, "fd_datasync", |c: Called<'_>, fd: u32| {
        act(c, |w, _| w.fd_sync(fd))
    })?;
    linker.func_wrap(m, "fd_sync", |c: Called<'_>, fd: u32| {
        act(c, |w, _| w.fd_sync(fd))
    })?;
    linker.func_wrap(m, "fd_fdstat_get", |c: Called<'_>, fd: u32, out: u32| {
        act(c, |w, g| w.fd_fdstat_get(g, fd, out))
    })?;
    linker.func_wrap(
        m,
        "fd_fdstat_set_flags",
        |c: Called<'_>, fd: u32, flags: u32| act(c, |w, _| w.fd_fdstat_set_flags(fd, flags)),
    )?;
    linker.func_wrap(
        m,
        "fd_fdstat_set_rights",
        |c: Called<'_>, fd: u32, _base: u64, _inheriting: u64| {
            act(c, |w, _| w.fd_fdstat_set_rights(fd))
        },
    )?;
    Ok(())
}

fn standing(linker: &mut Linker<Host>) -> wasmtime::Result<()> {
    let m = PREVIEW_1;
    linker.func_wrap(m, "fd_filestat_get", |c: Called<'_>, fd: u32, out: u32| {
        act(c, |w, g| w.fd_filestat_get(g, fd, out))
    })?;
    linker.func_wrap(
        m,
        "fd_filestat_set_size",
        |c: Called<'_>, fd: u32, bytes: u64| act(c, |w, _| w.fd_filestat_set_size(fd, bytes)),
    )?;
    linker.func_wrap(
        m,
        "fd_filestat_set_times",
        |c: Called<'_>, fd: u32, accessed: u64, modified: u64, flags: u32| {
            act(c, |w, _| {
                w.fd_filestat_set_times(fd, accessed, modified, flags)
            })
        },
    )?;
    linker.func_wrap(m, "fd_prestat_get", |c: Called<'_>, fd: u32, out: u32| {
        act(c, |w, g| w.fd_prestat_get(g, fd, out))
    })?;
    linker.func_wrap(
        m,
        "fd_prestat_dir_name",
        |c: Called<'_>, fd: u32, path: u32, bytes: u32| {
            act(c, |w, g| w.fd_prestat_dir_name(g, fd, span(path, bytes)))
        },
    )?;
    linker.func_wrap(m, "fd_renumber", |c: Called<'_>, from: u32, to: u32| {
        act(c, |w, _| w.fd_renumber(from, to))
    })?;
    linker.func_wrap(
        m,
        "fd_seek",
        |c: Called<'_>, fd: u32, delta: i64, whence: u32, out: u32| {
            act(c, |w, g| w.fd_seek(g, fd, delta, whence, out))
        },
    )?;
    linker.func_wrap(m, "fd_tell", |c: Called<'_>, fd: u32, out: u32| {
        act(c, |w, g| w.fd_tell(g, fd, out))
    })?;
    Ok(())
}

fn reading(linker: &mut Linker<Host>) -> wasmtime::Result<()> {
    let m = PREVIEW_1;
    const fn buffers(array: u32, count: u32, done: u32) -> Buffers {
        Buffers { array, count, done }
    }
    linker.func_wrap(
        m,
        "fd_read",
        |c: Called<'_>, fd: u32, array: u32, count: u32, done: u32| {
            act(c, |w, g| w.fd_read(g, fd, buffers(array, count, done)))
        },
    )?;
    linker.func_wrap(
        m,
        "fd_write",
        |c: Called<'_>, fd: u32, array: u32, count: u32, done: u32| {
            act(c, |w, g| w.fd_write(g, fd, buffers(array, count, done)))
        },
    )?;
    linker.func_wrap(
        m,
        "fd_pread",
        |c: Called<'_>, fd: u32, array: u32, count: u32, offset: u64, done: u32| {
            act(c, |w, g| {
                w.fd_pread(g, fd, buffers(array, count, done), offset)
            })
        },
    )?;
    linker.func_wrap(
        m,
        "fd_pwrite",
        |c: Called<'_>, fd: u32, array: u32, count: u32, offset: u64, done: u32| {
            act(c, |w, g| {
                w.fd_pwrite(g, fd, buffers(array, count, done), offset)
            })
        },
    )?;
    linker.func_wrap(
        m,
        "fd_readdir",
        |c: Called<'_>, fd: u32, into: u32, bytes: u32, cookie: u64, out: u32| {
            act(c, |w, g| {
                w.fd_readdir(g, fd, span(into, bytes), cookie, out)
            })
        },
    )?;
    linker.func_wrap(
        m,
        "sock_accept",
        |c: Called<'_>, fd: u32, _flags: u32, _out: u32| act(c, |w, _| w.no_socket(fd)),
    )?;
    linker.func_wrap(
        m,
        "sock_recv",
        |c: Called<'_>, fd: u32, _: u32, _: u32, _: u32, _: u32, _: u32| {
            act(c, |w, _| w.no_socket(fd))
        },
    )?;
    linker.func_wrap(
        m,
        "sock_send",
        |c: Called<'_>, fd: u32, _: u32, _: u32, _: u32, _: u32| act(c, |w, _| w.no_socket(fd)),
    )?;
    linker.func_wrap(m, "sock_shutdown", |c: Called<'_>, fd: u32, _how: u32| {
        act(c, |w, _| w.no_socket(fd))
    })?;
    Ok(())
}

fn paths(linker: &mut Linker<Host>) -> wasmtime::Result<()> {
    let m = PREVIEW_1;
    linker.func_wrap(
        m,
        "path_filestat_get",
        |c: Called<'_>, fd: u32, lookup: u32, path: u32, bytes: u32, out: u32| {
            act(c, |w, g| {
                w.path_filestat_get(g, fd, lookup, span(path, bytes), out)
            })
        },
    )?;
    linker.func_wrap(
        m,
        "path_filestat_set_times",
        |c: Called<'_>,
         fd: u32,
         lookup: u32,
         path: u32,
         bytes: u32,
         accessed: u64,
         modified: u64,
         flags: u32| {
            let times = (accessed, modified, flags);
            act(c, |w, g| {
                w.path_filestat_set_times(g, fd, lookup, span(path, bytes), times)
            })
        },
    )?;
    linker.func_wrap(
        m,
        "path_open",
        |c: Called<'_>,
         fd: u32,
         lookup: u32,
         path: u32,
         bytes: u32,
         how: u32,
         rights: u64,
         _inheriting: u64,
         flags: u32,
         out: u32| {
            let opening = Opening {
                lookup,
                how,
                rights,
                flags,
                out,
            };
            act(c, |w, g| w.path_open(g, fd, span(path, bytes), &opening))
        },
    )?;
    linker.func_wrap(
        m,
        "path_readlink",
        |c: Called<'_>, fd: u32, path: u32, bytes: u32, into: u32, room: u32, out: u32| {
            let (path, into) = (span(path, bytes), span(into, room));
            act(c, |w, g| w.path_readlink(g, fd, path, into, out))
        },
    )?;
    Ok(())
}

fn names(linker: &mut Linker<Host>) -> wasmtime::Result<()> {
    let m = PREVIEW_1;
    linker.func_wrap(
        m,
        "path_create_directory",
        |c: Called<'_>, fd: u32, path: u32, bytes: u32| {
            act(c, |w, g| w.path_create_directory(g, fd, span(path, bytes)))
        },
    )?;
    linker.func_wrap(
        m,
        "path_remove_directory",
        |c: Called<'_>, fd: u32, path: u32, bytes: u32| {
            act(c, |w, g| w.path_remove_directory(g, fd, span(path, bytes)))
        },
    )?;
    linker.func_wrap(
        m,
        "path_unlink_file",
        |c: Called<'_>, fd: u32, path: u32, bytes: u32| {
            act(c, |w, g| w.path_unlink_file(g, fd, span(path, bytes)))
        },
    )?;
    linker.func_wrap(
        m,
        "path_link",
        |c: Called<'_>,
         old_fd: u32,
         lookup: u32,
         old: u32,
         old_bytes: u32,
         new_fd: u32,
         new: u32,
         new_bytes: u32| {
            let from = (old_fd, lookup, span(old, old_bytes));
            act(c, |w, g| {
                w.path_link(g, from, (new_fd, span(new, new_bytes)))
            })
        },
    )?;
    linker.func_wrap(
        m,
        "path_rename",
        |c: Called<'_>,
         old_fd: u32,
         old: u32,
         old_bytes: u32,
         new_fd: u32,
         new: u32,
         new_bytes: u32| {
            let from = (old_fd, span(old, old_bytes));
            act(c, |w, g| {
                w.path_rename(g, from, (new_fd, span(new, new_bytes)))
            })
        },
    )?;
    linker.func_wrap(
        m,
        "path_symlink",
        |c: Called<'_>, target: u32, target_bytes: u32, fd: u32, path: u32, bytes: u32| {
            let target = span(target, target_bytes);
            act(c, |w, g| w.path_symlink(g, target, fd, span(path, bytes)))
        },
    )?;
    Ok(())
}

/// Offers the imports that may wait.
pub(in crate::core_module) fn offer_waiting(linker: &mut Linker<Host>) -> wasmtime::Result<()> {
    linker.func_wrap_async(
        PREVIEW_1,
        "poll_oneoff",
        |mut caller: Called<'_>, (subscriptions, events, count, out): (u32, u32, u32, u32)| {
            let poll = Poll {
                subscriptions,
                events,
                count,
            };
            Box::new(async move { answer(poll_oneoff(&mut caller, poll, out).await) })
        },
    )?;
    Ok(())
}

async fn poll_oneoff(caller: &mut Called<'_>, poll: Poll, out: u32) -> Result<(), Fail> {
    let since = Since::now()?;
    let mut waited: Option<Duration> = None;
    loop {
        let polled = with(caller, |wasi, guest| {
            let polled = wasi.poll(guest, poll, since, waited)?;
            if let Polled::Events(count) = polled {
                guest.put_u32(out, count)?;
            }
            Ok(polled)
        })?;
        match polled {
            Polled::Events(_) => return Ok(()),
            // A guest that waits past its deadline ends there, whatever it waits for.
            Polled::Wait(next) => tokio::time::sleep(next).await,
        }
        waited = match polled {
            Polled::Wait(next) => Some(next),
            Polled::Events(_) => None,
        };
    }
}
