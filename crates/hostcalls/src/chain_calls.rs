//! `chain_…`: what a guest calls, and the calls that it has in flight.
//!
//! ```text
//!   call  ──────────────────────────▶ Ended ──close──▶ gone
//!   spawn ──▶ Running ──wait, looks──▶ Ended
//!                └─ close, or the caller ends ─▶ cancelled, unless detached
//! ```

use std::collections::HashMap;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::future::poll_fn;
use model::{FunctionPath, InvocationId};
use sandbox::host::{Errno, Guest};
use sandbox::{Branch, Trunk};
use tokio::time::timeout;

use crate::host::Services;
use crate::session::fill;
use crate::{Caller, PayloadRoom, Refused, Reply, Request, Spawned};

/// The flag of a call that goes on when its caller ends.
const DETACHED: u32 = 1;
/// Bytes of a handle in a list.
const HANDLE_BYTES: usize = 4;

enum Child {
    /// And the bytes of its request.
    Running(Spawned, usize),
    Ended(Reply),
}

/// The calls of one guest.
pub(crate) struct Calls {
    services: Arc<Services>,
    guest: Arc<Guest>,
    caller: Option<Box<dyn Caller>>,
    trunk: Option<Trunk>,
    room: Arc<PayloadRoom>,
    children: HashMap<u32, Child>,
    next: u32,
}

impl Calls {
    pub fn new(services: Arc<Services>, guest: Arc<Guest>) -> Self {
        Self {
            room: PayloadRoom::new(services.config.payload_bytes_max),
            services,
            guest,
            caller: None,
            trunk: None,
            children: HashMap::new(),
            next: 1,
        }
    }

    pub async fn call(&mut self, name: &str, input: &[u8]) -> Result<u64, Errno> {
        if let Some(trunk) = self.borrower() {
            trunk.borrow().await;
        }
        let request = self.request(name, input, false)?;
        let reply = self.caller().call(request).await;
        self.room.give_back(input.len());
        let reply = reply.map_err(|refused| errno_of(&refused))?;
        Ok(self.keep(Child::Ended(reply)))
    }

    /// Spawns where that need not wait; none if it must ask another node first.
    pub fn spawn_here(
        &mut self,
        name: &str,
        input: &[u8],
        flags: u32,
    ) -> Option<Result<u64, Errno>> {
        match self.borrower() {
            None => Some(self.spawn(name, input, flags)),
            Some(_) => None,
        }
    }

    pub async fn spawn_later(
        &mut self,
        name: &str,
        input: &[u8],
        flags: u32,
    ) -> Result<u64, Errno> {
        if let Some(trunk) = self.borrower() {
            trunk.borrow().await;
        }
        self.spawn(name, input, flags)
    }

    fn spawn(&mut self, name: &str, input: &[u8], flags: u32) -> Result<u64, Errno> {
        if flags & !DETACHED != 0 {
            return Err(Errno::Invalid);
        }
        let request = self.request(name, input, flags & DETACHED != 0)?;
        let spawned = self.caller().spawn(request).map_err(|refused| {
            self.room.give_back(input.len());
            errno_of(&refused)
        })?;
        Ok(self.keep(Child::Running(spawned, input.len())))
    }

    pub async fn wait(&mut self, handle: u32, wait_ms: u64) -> Result<u64, Errno> {
        self.until(&[handle], wait_ms, |ended, _| ended == 1)
            .await?;
        self.look(handle)?
            .result
            .as_ref()
            .map(|_| 0)
            .map_err(|_| Errno::Failed)
    }

    pub async fn wait_any(&mut self, handles: &[u8], wait_ms: u64) -> Result<u64, Errno> {
        let handles = self.handles(handles)?;
        self.until(&handles, wait_ms, |ended, _| ended > 0).await?;
        let ended = |handle| matches!(self.children.get(handle), Some(Child::Ended(_)));
        let place = handles.iter().position(ended);
        place.map(|place| place as u64).ok_or(Errno::TimedOut)
    }

    pub async fn wait_all(&mut self, handles: &[u8], wait_ms: u64) -> Result<u64, Errno> {
        let handles = self.handles(handles)?;
        self.until(&handles, wait_ms, |ended, all| ended == all)
            .await?;
        let failed = |handle: &&u32| match self.children.get(handle) {
            Some(Child::Ended(reply)) => reply.result.is_err(),
            _ => false,
        };
        Ok(handles.iter().filter(failed).count() as u64)
    }

    /// Waits until enough of these have ended, running them in the stead of the one who waits.
    async fn until(
        &mut self,
        handles: &[u32],
        wait_ms: u64,
        enough: impl Fn(usize, usize) -> bool,
    ) -> Result<(), Errno> {
        let mut running = Vec::new();
        for handle in handles {
            match self.children.get(handle) {
                Some(Child::Running(spawned, _)) => running.push(spawned.id),
                Some(Child::Ended(_)) => {}
                None => return Err(Errno::NotFound),
            }
        }
        let _lent = (!running.is_empty()).then(|| self.caller().lend(&running));
        let (children, room) = (&mut self.children, &self.room);
        let wait = poll_fn(|cx| {
            let mut ended = 0;
            for handle in handles {
                let child = children.get_mut(handle);
                ended += usize::from(child.is_none_or(|child| child.poll(room, cx).is_ready()));
            }
            match enough(ended, handles.len()) {
                true => Poll::Ready(()),
                false => Poll::Pending,
            }
        });
        let waited = timeout(Duration::from_millis(wait_ms), wait).await;
        waited.map_err(|_| Errno::TimedOut)
    }

    pub fn size(&mut self, handle: u32) -> Result<u64, Errno> {
        self.reply(handle).map(|reply| reply.len() as u64)
    }

    pub fn read(&mut self, handle: u32, offset: u64, out: &mut [u8]) -> Result<u64, Errno> {
        let reply = self.reply(handle)?;
        let start = usize::try_from(offset).unwrap_or(usize::MAX);
        Ok(fill(out, reply.get(start..).unwrap_or_default()))
    }

    pub fn problem(&mut self, handle: u32, out: &mut [u8]) -> Result<u64, Errno> {
        match self.look(handle)?.result.as_ref() {
            Ok(_) => Ok(0),
            Err(problem) => {
                let mut end = problem.len().min(out.len());
                while !problem.is_char_boundary(end) {
                    end -= 1;
                }
                Ok(fill(out, &problem.as_bytes()[..end]))
            }
        }
    }

    pub fn id(&mut self, handle: u32, out: &mut [u8]) -> Result<u64, Errno> {
        let id: InvocationId = match self.child(handle)? {
            Child::Running(spawned, _) => spawned.id,
            Child::Ended(reply) => reply.id,
        };
        Ok(fill(out, id.to_string().as_bytes()))
    }

    pub fn close(&mut self, handle: u32) -> Result<u64, Errno> {
        let freed = match self.children.remove(&handle) {
            None => return Err(Errno::NotFound),
            Some(Child::Running(_, input_bytes)) => input_bytes,
            Some(Child::Ended(reply)) => reply.result.map_or(0, |reply| reply.len()),
        };
        self.room.give_back(freed);
        Ok(0)
    }

    /// The reply of a call that has ended well.
    fn reply(&mut self, handle: u32) -> Result<&Bytes, Errno> {
        let reply = self.look(handle)?;
        reply.result.as_ref().map_err(|_| Errno::Failed)
    }

    /// How a call ended, if it has by now.
    fn look(&mut self, handle: u32) -> Result<&Reply, Errno> {
        let child = self.children.get_mut(&handle).ok_or(Errno::NotFound)?;
        // What has ended is noticed also by those who never wait.
        let _ = child.poll(&self.room, &mut Context::from_waker(Waker::noop()));
        match child {
            Child::Ended(reply) => Ok(reply),
            Child::Running(..) => Err(Errno::TimedOut),
        }
    }

    fn caller(&mut self) -> &dyn Caller {
        let chain = &self.services.chain;
        &**self.caller.get_or_insert_with(|| chain.caller(&self.guest))
    }

    fn child(&mut self, handle: u32) -> Result<&mut Child, Errno> {
        self.children.get_mut(&handle).ok_or(Errno::NotFound)
    }

    fn handles(&self, list: &[u8]) -> Result<Vec<u32>, Errno> {
        let (handles, rest) = list.as_chunks::<HANDLE_BYTES>();
        if handles.is_empty()
            || !rest.is_empty()
            || handles.len() > self.services.config.handles_max
        {
            return Err(Errno::Invalid);
        }
        let handles = handles.iter().map(|bytes| u32::from_le_bytes(*bytes));
        let handles: Vec<u32> = handles.collect();
        let known = handles
            .iter()
            .all(|handle| self.children.contains_key(handle));
        known.then_some(handles).ok_or(Errno::NotFound)
    }

    fn keep(&mut self, child: Child) -> u64 {
        let handle = self.next;
        self.next = self.next.wrapping_add(1).max(1);
        self.children.insert(handle, child);
        u64::from(handle)
    }

    fn request(&mut self, name: &str, input: &[u8], detached: bool) -> Result<Request, Errno> {
        let callee = self.callee(name)?;
        let guest = &self.guest;
        if !guest.spec.settings.allow.may_call(&guest.path.app, &callee) {
            return Err(Errno::Denied);
        }
        if self.children.len() >= self.services.config.handles_max {
            return Err(Errno::Exhausted);
        }
        let branch = self.branch(detached)?;
        if !self.room.take(input.len()) {
            return Err(Errno::Exhausted);
        }
        Ok(Request {
            callee,
            input: Bytes::copy_from_slice(input),
            branch,
            detached,
            room: self.room.clone(),
        })
    }

    fn callee(&self, name: &str) -> Result<FunctionPath, Errno> {
        let path = match name.split_once('/') {
            Some(_) => name.parse(),
            None => name.parse().map(|function| FunctionPath {
                app: self.guest.path.app.clone(),
                function,
            }),
        };
        path.map_err(|_| Errno::Invalid)
    }

    fn trunk(&mut self) -> &Trunk {
        let (guest, tree) = (&self.guest, self.services.config.tree);
        self.trunk
            .get_or_insert_with(|| Trunk::new(guest.id, guest.branch.as_deref(), tree))
    }

    /// The guest's tree, if it must borrow before it grows: its root is on another node.
    fn borrower(&mut self) -> Option<&Trunk> {
        let branch = self.guest.branch.as_deref()?;
        if !branch.is_grafted() {
            return None;
        }
        Some(self.trunk()).filter(|trunk| trunk.is_spent())
    }

    fn branch(&mut self, detached: bool) -> Result<Branch, Errno> {
        let deadline = match detached {
            true => Instant::now() + self.services.config.detached_max,
            false => self.guest.deadline,
        };
        let (invocation, trace) = (self.guest.id, self.guest.trace);
        let trunk = self.trunk();
        if detached {
            trunk.keep();
        }
        let branch = trunk.grow(invocation, deadline, trace);
        branch.map_err(|error| {
            tracing::debug!(%invocation, %error, "a call was not made");
            Errno::Exhausted
        })
    }
}

impl Child {
    fn poll(&mut self, room: &PayloadRoom, cx: &mut Context<'_>) -> Poll<()> {
        let Child::Running(spawned, input_bytes) = self else {
            return Poll::Ready(());
        };
        let polled = std::task::ready!(spawned.reply.as_mut().poll(cx));
        let reply = polled.unwrap_or_else(|refused| Reply {
            id: spawned.id,
            result: Err(refused.to_string()),
        });
        room.give_back(*input_bytes);
        *self = Child::Ended(reply);
        Poll::Ready(())
    }
}

fn errno_of(refused: &Refused) -> Errno {
    match refused {
        Refused::NotFound => Errno::NotFound,
        Refused::TooLarge(_) => Errno::TooLarge,
        Refused::Exhausted(_) => Errno::Exhausted,
        Refused::Unavailable(_) => Errno::Unavailable,
    }
}
