//! Calls that a program is answered without leaving its machine: which, and what becomes of them
//! when it leaves it.
//!
//! Offered is only what has one possible answer and no effect that anybody could see before the
//! program leaves its machine, in whichever way: what it wrote to its reply is then part of that,
//! before anything else happens. One mapping may linger until then: that of a signal stack which
//! its thread has given up, and which nothing can refer to but a program that has unmapped it.

use super::descriptor::Object;
use super::process::{Exit, Guest, Process};
use super::signal::{OtherStack, SS_DISABLE};
use super::thread::{Request, Tid};
use crate::layout::PAGE;
use crate::stub::{Noted, Offers};

/// `munmap`.
const MUNMAP: u64 = 11;

impl Process {
    /// What the thread, which is about to go on, may be answered.
    pub fn offers(&self, tid: Tid) -> Offers {
        if !self.stage.is_call() {
            // Until there is a call, whatever is asked of it has to be known.
            return Offers::default();
        }
        let is = |descriptor: i32, wanted: fn(&Object) -> bool| {
            let open = self.descriptors.find(descriptor);
            open.is_ok_and(|open| wanted(&open.object))
        };
        let stack = self.threads.find(tid).and_then(|thread| {
            let stack = thread.signals.other_stack;
            let idle = stack.flags & SS_DISABLE == 0 && !stack.holds(thread.regs.rsp);
            // With the page below it that nobody may touch.
            let mapping = (
                stack.start.checked_sub(PAGE)?,
                stack.bytes.checked_add(PAGE)?,
            );
            idle.then_some(mapping)
        });
        Offers {
            end: self.input.left() == Some(0) && is(0, |object| matches!(object, Object::Input)),
            reply: is(1, |object| matches!(object, Object::Reply)),
            stack,
        }
    }

    /// Makes good what the thread was answered. `mapping` is what it may have unmapped; none if
    /// nobody will look any more.
    pub fn make_good(
        &mut self,
        guest: &mut dyn Guest,
        tid: Tid,
        noted: &Noted,
        mapping: Option<(u64, u64)>,
    ) {
        if !noted.reply.is_empty() && !self.world.reply(&noted.reply) {
            self.exit.get_or_insert(Exit::ReplyTooLong);
        }
        let (true, Some((start, bytes))) = (noted.stack, mapping) else {
            return;
        };
        if let Some(thread) = self.threads.find_mut(tid) {
            thread.signals.other_stack = OtherStack {
                start: 0,
                bytes: 0,
                flags: SS_DISABLE,
            };
        }
        if noted.unmapped {
            let request = Request {
                number: MUNMAP,
                args: [start, bytes, 0, 0, 0, 0],
            };
            // It was told that this went well, as it does for any addresses that are whole pages.
            let _ = self.dispatch(guest, tid, request, None);
        }
    }
}
