//! Generated from the table of host calls: `UPDATE_GENERATED=1 cargo nextest run -p hostcalls`.
#![cfg_attr(rustfmt, rustfmt_skip)]

use dunlin::calls;

use crate::script::{Answer, Line, Malformed};

/// Makes the call of this name; none if there is none.
pub fn dispatch(line: &mut Line<'_>, name: &str) -> Result<Option<Answer>, Malformed> {
    Ok(Some(match name {
        "state_size" => {
            let key = line.text()?;
            Answer::number(calls::state_size(&key))
        }
        "state_get" => {
            let key = line.text()?;
            let mut out = line.out()?;
            let result = calls::state_get(&key, &mut out);
            Answer::filled(result, out)
        }
        "state_set" => {
            let key = line.text()?;
            let value = line.bytes()?;
            Answer::number(calls::state_set(&key, &value))
        }
        "state_read" => {
            let key = line.text()?;
            let offset = line.number()?;
            let mut out = line.out()?;
            let result = calls::state_read(&key, offset, &mut out);
            Answer::filled(result, out)
        }
        "state_write" => {
            let key = line.text()?;
            let offset = line.number()?;
            let data = line.bytes()?;
            Answer::number(calls::state_write(&key, offset, &data))
        }
        "state_append" => {
            let key = line.text()?;
            let data = line.bytes()?;
            Answer::number(calls::state_append(&key, &data))
        }
        "state_truncate" => {
            let key = line.text()?;
            let size = line.number()?;
            Answer::number(calls::state_truncate(&key, size))
        }
        "state_delete" => {
            let key = line.text()?;
            Answer::number(calls::state_delete(&key))
        }
        "state_list" => {
            let prefix = line.text()?;
            let after = line.text()?;
            let mut out = line.out()?;
            let result = calls::state_list(&prefix, &after, &mut out);
            Answer::filled(result, out)
        }
        "state_version" => {
            let key = line.text()?;
            Answer::number(calls::state_version(&key))
        }
        "state_swap" => {
            let key = line.text()?;
            let expected = line.number()?;
            let value = line.bytes()?;
            Answer::number(calls::state_swap(&key, expected, &value))
        }
        "state_expire" => {
            let key = line.text()?;
            let ttl_ms = line.number()?;
            Answer::number(calls::state_expire(&key, ttl_ms))
        }
        "state_lock" => {
            let key = line.text()?;
            let mode = line.number()?;
            let wait_ms = line.number()?;
            let hold_ms = line.number()?;
            Answer::number(calls::state_lock(&key, mode as u32, wait_ms, hold_ms))
        }
        "state_unlock" => {
            let key = line.text()?;
            Answer::number(calls::state_unlock(&key))
        }
        "state_map" => {
            let key = line.text()?;
            let offset = line.number()?;
            let len = line.number()?;
            let mode = line.number()?;
            Answer::number(calls::state_map(&key, offset, len, mode as u32))
        }
        "state_push" => {
            let key = line.text()?;
            let offset = line.number()?;
            let len = line.number()?;
            Answer::number(calls::state_push(&key, offset, len))
        }
        "state_pull" => {
            let key = line.text()?;
            let offset = line.number()?;
            let len = line.number()?;
            Answer::number(calls::state_pull(&key, offset, len))
        }
        "chain_call" => {
            let function = line.text()?;
            let input = line.bytes()?;
            Answer::number(calls::chain_call(&function, &input))
        }
        "chain_spawn" => {
            let function = line.text()?;
            let input = line.bytes()?;
            let flags = line.number()?;
            Answer::number(calls::chain_spawn(&function, &input, flags as u32))
        }
        "chain_wait" => {
            let handle = line.number()?;
            let wait_ms = line.number()?;
            Answer::number(calls::chain_wait(handle as u32, wait_ms))
        }
        "chain_wait_any" => {
            let handles = line.bytes()?;
            let wait_ms = line.number()?;
            Answer::number(calls::chain_wait_any(&handles, wait_ms))
        }
        "chain_wait_all" => {
            let handles = line.bytes()?;
            let wait_ms = line.number()?;
            Answer::number(calls::chain_wait_all(&handles, wait_ms))
        }
        "chain_size" => {
            let handle = line.number()?;
            Answer::number(calls::chain_size(handle as u32))
        }
        "chain_read" => {
            let handle = line.number()?;
            let offset = line.number()?;
            let mut out = line.out()?;
            let result = calls::chain_read(handle as u32, offset, &mut out);
            Answer::filled(result, out)
        }
        "chain_problem" => {
            let handle = line.number()?;
            let mut out = line.out()?;
            let result = calls::chain_problem(handle as u32, &mut out);
            Answer::filled(result, out)
        }
        "chain_id" => {
            let handle = line.number()?;
            let mut out = line.out()?;
            let result = calls::chain_id(handle as u32, &mut out);
            Answer::filled(result, out)
        }
        "chain_close" => {
            let handle = line.number()?;
            Answer::number(calls::chain_close(handle as u32))
        }
        _ => return Ok(None),
    }))
}
