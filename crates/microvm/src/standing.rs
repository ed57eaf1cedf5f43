//! What is remembered of a freestanding guest over its image: its heap, and what it has asked for.

use std::ops::Range;

use sandbox::host::Errno;

use crate::fault::Fault;
use crate::freestanding::STACK_GUARD;
use crate::layout::{PAGE, USER_START};
use crate::machine::Machine;
use crate::space::{Protection, Space, SpaceError};

/// Where a guest's own faults go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Catch {
    pub handler: u64,
    /// Instructions whose faults are caught.
    pub start: u64,
    pub end: u64,
}

/// See above.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Standing {
    /// Where its heap begins.
    pub heap: u64,
    /// The memory that regions become part of; none where they lie anywhere.
    pub linear: Option<u64>,
    pub catch: Option<Catch>,
}

/// Numbers that it is written as.
const WORDS: usize = 5;

impl Standing {
    pub fn encode(self) -> Vec<u8> {
        let catch = self.catch.unwrap_or(Catch {
            handler: 0,
            start: 0,
            end: 0,
        });
        let linear = self.linear.unwrap_or(0);
        let words = [self.heap, linear, catch.handler, catch.start, catch.end];
        words.into_iter().flat_map(u64::to_le_bytes).collect()
    }

    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let (words, rest) = bytes.as_chunks::<8>();
        let words: [[u8; 8]; WORDS] = words.try_into().ok()?;
        let [heap, linear, handler, start, end] = words.map(u64::from_le_bytes);
        let catch = Catch {
            handler,
            start,
            end,
        };
        rest.is_empty().then_some(Self {
            heap,
            linear: (linear != 0).then_some(linear),
            catch: (handler != 0).then_some(catch),
        })
    }

    /// The handler of `fault`, if the guest catches it.
    pub fn handler(&self, fault: &Fault) -> Option<u64> {
        let catch = self.catch?;
        let within = (catch.start..catch.end).contains(&fault.rip);
        within.then_some(catch.handler)
    }

    /// Adds `bytes` to the heap; gives its new end.
    pub fn grow(&self, machine: &mut Machine, bytes: u64) -> Result<u64, Errno> {
        let end = contiguous_end(&machine.space, self.heap);
        let bytes = bytes
            .checked_next_multiple_of(PAGE)
            .ok_or(Errno::Exhausted)?;
        if end
            .checked_add(bytes)
            .is_none_or(|end| end > STACK_GUARD.start)
        {
            return Err(Errno::Exhausted);
        }
        if bytes == 0 {
            return Ok(end);
        }
        let grown = machine.map(end, bytes, Protection::READ_WRITE);
        grown.map_err(|_| Errno::Exhausted)?;
        Ok(end + bytes)
    }
}

/// The end of what lies together from `start` on, one area after another.
pub(crate) fn contiguous_end(space: &Space, start: u64) -> u64 {
    let mut end = start;
    while let Some((_, area)) = space.area(end) {
        end = area.end;
    }
    end
}

/// What a guest may ask a page to be, by its number: never writable and executable at once.
fn protection(rights: u64) -> Result<Protection, Errno> {
    const READ: u64 = 1;
    const READ_WRITE: u64 = 3;
    const READ_EXECUTE: u64 = 5;
    Ok(match rights {
        0 => Protection::NONE,
        READ => Protection::READ,
        READ_WRITE => Protection::READ_WRITE,
        READ_EXECUTE => Protection::READ_EXECUTE,
        _ => return Err(Errno::Invalid),
    })
}

/// The guest's own pages among `at..at + bytes`.
fn pages(at: u64, bytes: u64) -> Result<Range<u64>, Errno> {
    let end = at.checked_add(bytes).ok_or(Errno::Invalid)?;
    let whole = at.is_multiple_of(PAGE) && bytes.is_multiple_of(PAGE);
    if whole && bytes > 0 && at >= USER_START && end <= STACK_GUARD.start {
        return Ok(at..end);
    }
    Err(Errno::Invalid)
}

/// Gives pages of a guest's `rights`: zeros where there was nothing, and nothing where there are
/// none.
pub(crate) fn map(machine: &mut Machine, at: u64, bytes: u64, rights: u64) -> Result<(), Errno> {
    let protection = protection(rights)?;
    let pages = pages(at, bytes)?;
    change(machine, pages, protection).map_err(|error| match error {
        SpaceError::Addresses { .. } => Errno::Invalid,
        _ => Errno::Exhausted,
    })
}

fn change(
    machine: &mut Machine,
    pages: Range<u64>,
    protection: Protection,
) -> Result<(), SpaceError> {
    if protection == Protection::NONE {
        return machine.unmap(pages.start, pages.end - pages.start);
    }
    let mut at = pages.start;
    while at < pages.end {
        match machine.space.area(at) {
            Some((_, area)) => {
                let end = area.end.min(pages.end);
                if area.protection != protection {
                    machine.protect(at, end - at, protection)?;
                }
                at = end;
            }
            None => {
                let end = machine.space.next_area(at).unwrap_or(u64::MAX);
                let end = end.min(pages.end);
                machine.map(at, end - at, protection)?;
                at = end;
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_comes_back_as_it_was() {
        let catch = Catch {
            handler: 1,
            start: 2,
            end: 3,
        };
        for (linear, catch) in [(None, None), (Some(4), Some(catch))] {
            let standing = Standing {
                heap: 5,
                linear,
                catch,
            };
            assert_eq!(Standing::decode(&standing.encode()), Some(standing));
        }
        assert_eq!(Standing::decode(&[0; 39]), None);
        assert_eq!(Standing::decode(&[0; 41]), None);
    }

    #[test]
    fn no_page_is_writable_and_executable_and_none_of_the_hosts_is_the_guests() {
        for rights in [2, 4, 6, 7, 8, u64::MAX] {
            assert_eq!(protection(rights), Err(Errno::Invalid));
        }
        for (at, bytes) in [
            (0, PAGE),
            (USER_START, 0),
            (USER_START + 1, PAGE),
            (USER_START, 1),
            (u64::MAX - PAGE + 1, PAGE),
            (STACK_GUARD.start, PAGE),
            (USER_START, u64::MAX),
            (crate::abi::CALL_PAGE, PAGE),
        ] {
            assert_eq!(pages(at, bytes), Err(Errno::Invalid), "{at:#x} {bytes:#x}");
        }
        assert!(pages(USER_START, PAGE).is_ok());
    }
}
