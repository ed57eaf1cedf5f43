//! The answers to one guest in one call: arguments taken apart, grants checked, results counted.

use std::sync::Arc;

use futures::future::BoxFuture;
use sandbox::host::{Arg, Errno, Guest, Mapper, Session};

use crate::chain_calls::Calls;
use crate::host::Services;
use crate::state_calls::Keys;
use crate::table::{Op, ROWS};

pub(crate) struct GuestSession {
    services: Arc<Services>,
    keys: Keys,
    calls: Calls,
}

impl GuestSession {
    pub fn new(services: Arc<Services>, guest: Guest) -> Self {
        let guest = Arc::new(guest);
        Self {
            keys: Keys::new(&services, guest.clone()),
            calls: Calls::new(services.clone(), guest),
            services,
        }
    }

    /// Answers what may have to wait.
    async fn answer(
        &mut self,
        op: Op,
        args: &mut [Arg<'_>],
        mapper: Option<&mut dyn Mapper>,
    ) -> Result<u64, Errno> {
        use Arg::{Bytes, Out, Str, U32, U64};
        let (keys, calls) = (&mut self.keys, &mut self.calls);
        match (op, args) {
            (Op::StateSize, [Str(key)]) => keys.size(key).await,
            (Op::StateGet, [Str(key), Out(out)]) => keys.get(key, out).await,
            (Op::StateSet, [Str(key), Bytes(value)]) => keys.set(key, value).await,
            (Op::StateRead, [Str(key), U64(at), Out(out)]) => keys.read(key, *at, out).await,
            (Op::StateWrite, [Str(key), U64(at), Bytes(data)]) => keys.write(key, *at, data).await,
            (Op::StateAdd, [Str(key), U64(at), U64(amount), Out(out)]) => {
                keys.add(key, *at, *amount, out.bytes()).await
            }
            (Op::StateAppend, [Str(key), Bytes(data)]) => keys.append(key, data).await,
            (Op::StateTruncate, [Str(key), U64(size)]) => keys.truncate(key, *size).await,
            (Op::StateDelete, [Str(key)]) => keys.delete(key).await,
            (Op::StateList, [Str(prefix), Str(after), Out(out)]) => {
                keys.list(prefix, after, out.bytes()).await
            }
            (Op::StateVersion, [Str(key)]) => keys.version(key).await,
            (Op::StateSwap, [Str(key), U64(expected), Bytes(value)]) => {
                keys.swap(key, *expected, value).await
            }
            (Op::StateExpire, [Str(key), U64(ttl_ms)]) => keys.expire(key, *ttl_ms).await,
            (Op::StateLock, [Str(key), U32(mode), U64(wait_ms), U64(hold_ms)]) => {
                keys.lock(key, *mode, *wait_ms, *hold_ms).await
            }
            (Op::StateUnlock, [Str(key)]) => keys.unlock(key).await,
            (Op::StateMap, [Str(key), U64(at), U64(len), U32(mode)]) => {
                let mapper = mapper.ok_or(Errno::Unavailable)?;
                keys.map(key, (*at, *len), *mode, mapper).await
            }
            (Op::StatePush, [Str(key), U64(at), U64(len)]) => keys.push(key, *at, *len).await,
            (Op::StatePull, [Str(key), U64(at), U64(len)]) => keys.pull(key, *at, *len).await,
            (Op::ChainCall, [Str(name), Bytes(input)]) => calls.call(name, input).await,
            (Op::ChainSpawn, [Str(name), Bytes(input), U32(flags)]) => {
                calls.spawn_later(name, input, *flags).await
            }
            (Op::ChainWait, [U32(call), U64(wait_ms)]) => calls.wait(*call, *wait_ms).await,
            (Op::ChainWaitAny, [Bytes(handles), U64(wait_ms)]) => {
                calls.wait_any(handles, *wait_ms).await
            }
            (Op::ChainWaitAll, [Bytes(handles), U64(wait_ms)]) => {
                calls.wait_all(handles, *wait_ms).await
            }
            // A back-end that does not follow the table.
            _ => Err(Errno::Invalid),
        }
    }
}

impl Session for GuestSession {
    fn call<'a>(
        &'a mut self,
        index: usize,
        args: &'a mut [Arg<'_>],
        mapper: Option<&'a mut dyn Mapper>,
    ) -> BoxFuture<'a, Result<u64, Errno>> {
        Box::pin(async move {
            if let Some(answer) = self.at_once(index, args) {
                return answer;
            }
            let answer = match ROWS.get(index) {
                Some((op, _)) => self.answer(*op, args, mapper).await,
                None => Err(Errno::Invalid),
            };
            self.services.counts.count(index, &answer);
            answer
        })
    }

    fn at_once(&mut self, index: usize, args: &mut [Arg<'_>]) -> Option<Result<u64, Errno>> {
        use Arg::{Bytes, Out, Str, U32, U64};
        let (op, _) = ROWS.get(index)?;
        let (keys, calls) = (&mut self.keys, &mut self.calls);
        let answer = match (op, args) {
            (Op::StateSize, [Str(key)]) => keys.size_here(key)?,
            (Op::StateVersion, [Str(key)]) => keys.version_here(key)?,
            (Op::StateGet, [Str(key), Out(out)]) => keys.get_here(key, out.bytes())?,
            (Op::StateRead, [Str(key), U64(at), Out(out)]) => {
                keys.read_here(key, *at, out.bytes())?
            }
            (Op::ChainSpawn, [Str(name), Bytes(input), U32(flags)]) => {
                calls.spawn_here(name, input, *flags)?
            }
            (Op::ChainSize, [U32(call)]) => calls.size(*call),
            (Op::ChainRead, [U32(call), U64(at), Out(out)]) => calls.read(*call, *at, out.bytes()),
            (Op::ChainProblem, [U32(call), Out(out)]) => calls.problem(*call, out.bytes()),
            (Op::ChainId, [U32(call), Out(out)]) => calls.id(*call, out.bytes()),
            (Op::ChainClose, [U32(call)]) => calls.close(*call),
            _ => return None,
        };
        self.services.counts.count(index, &answer);
        Some(answer)
    }
}

/// Copies what fits of `bytes`, and says how much that was.
pub(crate) fn fill(out: &mut [u8], bytes: &[u8]) -> u64 {
    let count = out.len().min(bytes.len());
    out[..count].copy_from_slice(&bytes[..count]);
    count as u64
}
