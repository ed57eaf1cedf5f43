//! Generated from the table of host calls: `UPDATE_GENERATED=1 cargo nextest run -p hostcalls`.
#![cfg_attr(rustfmt, rustfmt_skip)]

use dunlin::calls;

use crate::script::{Answer, Line, Malformed};

type Run = fn(&mut Line<'_>) -> Result<Answer, Malformed>;

const CALLS: &[(&str, Run)] = &[
    ("state_size", state_size),
    ("state_get", state_get),
    ("state_set", state_set),
    ("state_read", state_read),
    ("state_write", state_write),
    ("state_add", state_add),
    ("state_append", state_append),
    ("state_truncate", state_truncate),
    ("state_delete", state_delete),
    ("state_list", state_list),
    ("state_version", state_version),
    ("state_swap", state_swap),
    ("state_expire", state_expire),
    ("state_lock", state_lock),
    ("state_unlock", state_unlock),
    ("state_map", state_map),
    ("state_push", state_push),
    ("state_pull", state_pull),
    ("chain_call", chain_call),
    ("chain_spawn", chain_spawn),
    ("chain_wait", chain_wait),
    ("chain_wait_any", chain_wait_any),
    ("chain_wait_all", chain_wait_all),
    ("chain_size", chain_size),
    ("chain_read", chain_read),
    ("chain_problem", chain_problem),
    ("chain_id", chain_id),
    ("chain_close", chain_close),
];

/// Makes the call of this name; none if there is none.
pub fn dispatch(line: &mut Line<'_>, name: &str) -> Result<Option<Answer>, Malformed> {
    let found = CALLS.iter().find(|(call, _)| *call == name);
    found.map(|(_, run)| run(line)).transpose()
}

fn state_size(line: &mut Line<'_>) -> Result<Answer, Malformed> {
    let key = line.text()?;
    if !line.is_over() {
        return Err(Malformed);
    }
    Ok(Answer::number(calls::state_size(&key)))
}

fn state_get(line: &mut Line<'_>) -> Result<Answer, Malformed> {
    let key = line.text()?;
    let mut out = line.out()?;
    if !line.is_over() {
        return Err(Malformed);
    }
    let result = calls::state_get(&key, &mut out);
    Ok(Answer::filled(result, out))
}

fn state_set(line: &mut Line<'_>) -> Result<Answer, Malformed> {
    let key = line.text()?;
    let value = line.bytes()?;
    if !line.is_over() {
        return Err(Malformed);
    }
    Ok(Answer::number(calls::state_set(&key, &value)))
}

fn state_read(line: &mut Line<'_>) -> Result<Answer, Malformed> {
    let key = line.text()?;
    let offset = line.number()?;
    let mut out = line.out()?;
    if !line.is_over() {
        return Err(Malformed);
    }
    let result = calls::state_read(&key, offset, &mut out);
    Ok(Answer::filled(result, out))
}

fn state_write(line: &mut Line<'_>) -> Result<Answer, Malformed> {
    let key = line.text()?;
    let offset = line.number()?;
    let data = line.bytes()?;
    if !line.is_over() {
        return Err(Malformed);
    }
    Ok(Answer::number(calls::state_write(&key, offset, &data)))
}

fn state_add(line: &mut Line<'_>) -> Result<Answer, Malformed> {
    let key = line.text()?;
    let offset = line.number()?;
    let amount = line.number()?;
    let mut out = line.out()?;
    if !line.is_over() {
        return Err(Malformed);
    }
    let result = calls::state_add(&key, offset, amount, &mut out);
    Ok(Answer::filled(result, out))
}

fn state_append(line: &mut Line<'_>) -> Result<Answer, Malformed> {
    let key = line.text()?;
    let data = line.bytes()?;
    if !line.is_over() {
        return Err(Malformed);
    }
    Ok(Answer::number(calls::state_append(&key, &data)))
}

fn state_truncate(line: &mut Line<'_>) -> Result<Answer, Malformed> {
    let key = line.text()?;
    let size = line.number()?;
    if !line.is_over() {
        return Err(Malformed);
    }
    Ok(Answer::number(calls::state_truncate(&key, size)))
}

fn state_delete(line: &mut Line<'_>) -> Result<Answer, Malformed> {
    let key = line.text()?;
    if !line.is_over() {
        return Err(Malformed);
    }
    Ok(Answer::number(calls::state_delete(&key)))
}

fn state_list(line: &mut Line<'_>) -> Result<Answer, Malformed> {
    let prefix = line.text()?;
    let after = line.text()?;
    let mut out = line.out()?;
    if !line.is_over() {
        return Err(Malformed);
    }
    let result = calls::state_list(&prefix, &after, &mut out);
    Ok(Answer::filled(result, out))
}

fn state_version(line: &mut Line<'_>) -> Result<Answer, Malformed> {
    let key = line.text()?;
    if !line.is_over() {
        return Err(Malformed);
    }
    Ok(Answer::number(calls::state_version(&key)))
}

fn state_swap(line: &mut Line<'_>) -> Result<Answer, Malformed> {
    let key = line.text()?;
    let expected = line.number()?;
    let value = line.bytes()?;
    if !line.is_over() {
        return Err(Malformed);
    }
    Ok(Answer::number(calls::state_swap(&key, expected, &value)))
}

fn state_expire(line: &mut Line<'_>) -> Result<Answer, Malformed> {
    let key = line.text()?;
    let ttl_ms = line.number()?;
    if !line.is_over() {
        return Err(Malformed);
    }
    Ok(Answer::number(calls::state_expire(&key, ttl_ms)))
}

fn state_lock(line: &mut Line<'_>) -> Result<Answer, Malformed> {
    let key = line.text()?;
    let mode = line.number()?;
    let wait_ms = line.number()?;
    let hold_ms = line.number()?;
    if !line.is_over() {
        return Err(Malformed);
    }
    Ok(Answer::number(calls::state_lock(&key, mode as u32, wait_ms, hold_ms)))
}

fn state_unlock(line: &mut Line<'_>) -> Result<Answer, Malformed> {
    let key = line.text()?;
    if !line.is_over() {
        return Err(Malformed);
    }
    Ok(Answer::number(calls::state_unlock(&key)))
}

fn state_map(line: &mut Line<'_>) -> Result<Answer, Malformed> {
    let key = line.text()?;
    let offset = line.number()?;
    let len = line.number()?;
    let mode = line.number()?;
    if !line.is_over() {
        return Err(Malformed);
    }
    Ok(Answer::number(calls::state_map(&key, offset, len, mode as u32)))
}

fn state_push(line: &mut Line<'_>) -> Result<Answer, Malformed> {
    let key = line.text()?;
    let offset = line.number()?;
    let len = line.number()?;
    if !line.is_over() {
        return Err(Malformed);
    }
    Ok(Answer::number(calls::state_push(&key, offset, len)))
}

fn state_pull(line: &mut Line<'_>) -> Result<Answer, Malformed> {
    let key = line.text()?;
    let offset = line.number()?;
    let len = line.number()?;
    if !line.is_over() {
        return Err(Malformed);
    }
    Ok(Answer::number(calls::state_pull(&key, offset, len)))
}

fn chain_call(line: &mut Line<'_>) -> Result<Answer, Malformed> {
    let function = line.text()?;
    let input = line.bytes()?;
    if !line.is_over() {
        return Err(Malformed);
    }
    Ok(Answer::number(calls::chain_call(&function, &input)))
}

fn chain_spawn(line: &mut Line<'_>) -> Result<Answer, Malformed> {
    let function = line.text()?;
    let input = line.bytes()?;
    let flags = line.number()?;
    if !line.is_over() {
        return Err(Malformed);
    }
    Ok(Answer::number(calls::chain_spawn(&function, &input, flags as u32)))
}

fn chain_wait(line: &mut Line<'_>) -> Result<Answer, Malformed> {
    let handle = line.number()?;
    let wait_ms = line.number()?;
    if !line.is_over() {
        return Err(Malformed);
    }
    Ok(Answer::number(calls::chain_wait(handle as u32, wait_ms)))
}

fn chain_wait_any(line: &mut Line<'_>) -> Result<Answer, Malformed> {
    let handles = line.bytes()?;
    let wait_ms = line.number()?;
    if !line.is_over() {
        return Err(Malformed);
    }
    Ok(Answer::number(calls::chain_wait_any(&handles, wait_ms)))
}

fn chain_wait_all(line: &mut Line<'_>) -> Result<Answer, Malformed> {
    let handles = line.bytes()?;
    let wait_ms = line.number()?;
    if !line.is_over() {
        return Err(Malformed);
    }
    Ok(Answer::number(calls::chain_wait_all(&handles, wait_ms)))
}

fn chain_size(line: &mut Line<'_>) -> Result<Answer, Malformed> {
    let handle = line.number()?;
    if !line.is_over() {
        return Err(Malformed);
    }
    Ok(Answer::number(calls::chain_size(handle as u32)))
}

fn chain_read(line: &mut Line<'_>) -> Result<Answer, Malformed> {
    let handle = line.number()?;
    let offset = line.number()?;
    let mut out = line.out()?;
    if !line.is_over() {
        return Err(Malformed);
    }
    let result = calls::chain_read(handle as u32, offset, &mut out);
    Ok(Answer::filled(result, out))
}

fn chain_problem(line: &mut Line<'_>) -> Result<Answer, Malformed> {
    let handle = line.number()?;
    let mut out = line.out()?;
    if !line.is_over() {
        return Err(Malformed);
    }
    let result = calls::chain_problem(handle as u32, &mut out);
    Ok(Answer::filled(result, out))
}

fn chain_id(line: &mut Line<'_>) -> Result<Answer, Malformed> {
    let handle = line.number()?;
    let mut out = line.out()?;
    if !line.is_over() {
        return Err(Malformed);
    }
    let result = calls::chain_id(handle as u32, &mut out);
    Ok(Answer::filled(result, out))
}

fn chain_close(line: &mut Line<'_>) -> Result<Answer, Malformed> {
    let handle = line.number()?;
    if !line.is_over() {
        return Err(Malformed);
    }
    Ok(Answer::number(calls::chain_close(handle as u32)))
}
