//! Does what a script says, by the SDK for Rust. See `../../README.md`.

mod dispatch;
mod script;

use std::time::Duration;

use dunlin::Error;
use dunlin::calls::raw;
use dunlin::chain::{self, CallError};
use dunlin::objects::{Counter, Dictionary, List, Matrix, Sparse, SparseDraft, Vector};
use dunlin::state::{self, Mode, View, ViewMut};
use script::{Answer, Line, Malformed};

const WAIT: Duration = Duration::from_secs(10);
const LINES_MAX: usize = 256;
const CALLS_MAX: u64 = 64;

dunlin::reactor!(handle = handle);

fn handle() -> Result<(), i32> {
    let body = String::from_utf8(dunlin::input()).map_err(|_| 1)?;
    let mut results = Vec::new();
    for text in body.lines().filter(|text| !text.is_empty()).take(LINES_MAX) {
        let (result, text) = match run(text, &results) {
            Ok(answer) => (answer.result, answer.text()),
            Err(Malformed) => (Error::Invalid.code(), "bad\n".to_owned()),
        };
        results.push(result);
        dunlin::output(text.as_bytes()).map_err(|_| 2)?;
    }
    Ok(())
}

fn run(text: &str, results: &[i64]) -> Result<Answer, Malformed> {
    let (name, mut line) = Line::of(text, results);
    let line = &mut line;
    if let Some(answer) = dispatch::dispatch(line, name)? {
        return Ok(answer);
    }
    let answer = match name {
        "peek" | "poke" => memory(line, name)?,
        "get" => Answer::bytes(state::get(&line.text()?)),
        "call" => call(line)?,
        "fan" | "any" => fan(line, name == "fan")?,
        "locked_add" => locked_add(line)?,
        "counter_add" => {
            let (key, count, times) = (line.text()?, line.number()?, line.number()?);
            Answer::number(
                Counter::open(&key).map(|counter| (0..times).fold(0, |_, _| counter.add(count))),
            )
        }
        "counter_value" => Answer::number(Counter::open(&line.text()?).map(|it| it.value())),
        name if name.starts_with("vector_") => vector(line, name == "vector_put")?,
        name if name.starts_with("matrix_") => matrix(line, name == "matrix_put")?,
        "sparse_put" => sparse_put(line)?,
        "sparse_at" => {
            let (key, row, col) = (line.text()?, line.number()?, line.number()?);
            let sparse = Sparse::<f64>::open(&key);
            Answer::number(sparse.map(|it| it.at(row as usize, col as u32).to_bits()))
        }
        name if name.starts_with("list_") => list(line, name)?,
        "dict_put" => dict_put(line)?,
        name if name.starts_with("dict_") => dict(line, name)?,
        name => payload(line, name)?,
    };
    if line.is_over() {
        Ok(answer)
    } else {
        Err(Malformed)
    }
}

/// The calls that move the payload, which are offered as they are.
fn payload(line: &mut Line<'_>, name: &str) -> Result<Answer, Malformed> {
    let number = |result: i32| Answer::number(u64::try_from(result).map_err(|_| Error::of(-1)));
    // SAFETY: each pointer has the bytes that its length says.
    unsafe {
        Ok(match name {
            "input_size" => number(raw::input_size()),
            "input_read" => {
                let (offset, mut out) = (line.number()?, line.out()?);
                let count = raw::input_read(offset as i32, out.as_mut_ptr(), out.len() as i32);
                Answer::filled(Ok(count as u64), out)
            }
            "output_write" => {
                let data = line.bytes()?;
                number(raw::output_write(data.as_ptr(), data.len() as i32))
            }
            "log_write" => {
                let (level, data) = (line.number()?, line.bytes()?);
                raw::log_write(level as i32, data.as_ptr(), data.len() as i32);
                number(0)
            }
            _ => return Err(Malformed),
        })
    }
}

fn memory(line: &mut Line<'_>, name: &str) -> Result<Answer, Malformed> {
    let at = line.number()? as usize;
    if name == "peek" {
        let mut out = line.out()?;
        // SAFETY: the script names memory that it has mapped; else it traps, or reads its own.
        unsafe { std::ptr::copy(at as *const u8, out.as_mut_ptr(), out.len()) };
        return Ok(Answer::bytes(Ok(out)));
    }
    let data = line.bytes()?;
    // SAFETY: the same; a script that names other memory spoils only its own sandbox.
    unsafe { std::ptr::copy(data.as_ptr(), at as *mut u8, data.len()) };
    Ok(Answer::number(Ok(data.len() as u64)))
}

fn call(line: &mut Line<'_>) -> Result<Answer, Malformed> {
    let (function, input) = (line.text()?, line.bytes()?);
    Ok(match chain::call(&function, &input) {
        Err(CallError::Failed(problem)) => Answer::with(Err(Error::Failed), problem.into_bytes()),
        Err(CallError::Refused(error)) => Answer::number(Err(error)),
        Ok(reply) => Answer::bytes(Ok(reply)),
    })
}

fn fan(line: &mut Line<'_>, is_all: bool) -> Result<Answer, Malformed> {
    let (function, input, count) = (line.text()?, line.bytes()?, line.number()?);
    if count > CALLS_MAX {
        return Err(Malformed);
    }
    let started: Result<Vec<_>, _> = (0..count)
        .map(|_| chain::spawn(&function, &input))
        .collect();
    let calls = match started {
        Ok(calls) => calls,
        Err(error) => return Ok(Answer::number(Err(error))),
    };
    if !is_all {
        return Ok(Answer::number(
            chain::any(&calls, WAIT).map(|place| place as u64),
        ));
    }
    let failed = chain::all(&calls, WAIT).map(|count| count as u64);
    let replies = calls.into_iter().filter_map(|call| call.reply().ok());
    Ok(match failed {
        Ok(_) => Answer::with(failed, replies.flatten().collect()),
        Err(_) => Answer::number(failed),
    })
}

fn add_locked(key: &str, count: u64) -> Result<u64, Error> {
    let _held = state::lock(key, Mode::Exclusive, WAIT)?;
    let mut bytes = [0; 8];
    match dunlin::calls::state_get(key, &mut bytes) {
        Ok(_) | Err(Error::NotFound) => {}
        Err(error) => return Err(error),
    }
    let value = u64::from_le_bytes(bytes).wrapping_add(count);
    state::set(key, &value.to_le_bytes())?;
    Ok(value)
}

fn locked_add(line: &mut Line<'_>) -> Result<Answer, Malformed> {
    let (key, count, times) = (line.text()?, line.number()?, line.number()?);
    let last = (0..times).try_fold(0, |_, _| add_locked(&key, count));
    Ok(Answer::number(last))
}

fn vector(line: &mut Line<'_>, is_put: bool) -> Result<Answer, Malformed> {
    let key = line.text()?;
    if !is_put {
        let at = line.number()? as usize;
        let vector = Vector::open::<f64>(&key);
        let number = vector.and_then(|it| it.get(at).copied().ok_or(Error::Invalid));
        return Ok(Answer::number(number.map(f64::to_bits)));
    }
    let (length, at, bits) = (line.number()?, line.number()?, line.number()?);
    let vector = Vector::open_mut::<f64>(&key, length as usize);
    Ok(Answer::number(vector.and_then(|mut it| {
        *it.get_mut(at as usize).ok_or(Error::Invalid)? = f64::from_bits(bits);
        Ok(0)
    })))
}

fn matrix(line: &mut Line<'_>, is_put: bool) -> Result<Answer, Malformed> {
    let key = line.text()?;
    if !is_put {
        let (row, col) = (line.number()? as usize, line.number()? as usize);
        let matrix = Matrix::<View<f64>>::open(&key);
        return Ok(Answer::number(matrix.and_then(|it| {
            let number = it.row(row).and_then(|row| row.get(col));
            number.map(|number| number.to_bits()).ok_or(Error::Invalid)
        })));
    }
    let (rows, cols) = (line.number()? as usize, line.number()? as usize);
    let (row, col, bits) = (
        line.number()? as usize,
        line.number()? as usize,
        line.number()?,
    );
    let matrix = Matrix::<ViewMut<f64>>::make(&key, rows, cols);
    Ok(Answer::number(matrix.and_then(|mut it| {
        let number = it.row_mut(row).and_then(|row| row.get_mut(col));
        *number.ok_or(Error::Invalid)? = f64::from_bits(bits);
        Ok(0)
    })))
}

fn sparse_put(line: &mut Line<'_>) -> Result<Answer, Malformed> {
    let (key, rows, cols) = (
        line.text()?,
        line.number()? as usize,
        line.number()? as usize,
    );
    let bytes = line.bytes()?;
    let entries: Vec<&[u8]> = bytes.chunks_exact(16).collect();
    let word = |entry: &[u8], at| u32::from_le_bytes(std::array::from_fn(|i| entry[at + i]));
    let made = SparseDraft::<f64>::make(&key, rows, cols, entries.len()).and_then(|mut draft| {
        let (starts, columns, values) = draft.parts();
        for (row, start) in starts.iter_mut().enumerate() {
            *start = entries.partition_point(|entry| (word(entry, 0) as usize) < row) as u64;
        }
        for (at, entry) in entries.iter().enumerate() {
            columns[at] = word(entry, 4);
            values[at] = f64::from_le_bytes(std::array::from_fn(|i| entry[8 + i]));
        }
        draft.publish()
    });
    Ok(Answer::number(made.map(|()| 0)))
}

fn list(line: &mut Line<'_>, name: &str) -> Result<Answer, Malformed> {
    let key = line.text()?;
    if name == "list_add" {
        let record = line.bytes()?;
        let place = List::new(&key, record.len()).add(&record);
        return Ok(Answer::number(place.map(|place| place as u64)));
    }
    let list = List::new(&key, line.number()? as usize);
    match name {
        "list_length" => Ok(Answer::number(list.len().map(|length| length as u64))),
        "list_at" => Ok(Answer::bytes(list.at(line.number()? as usize))),
        _ => Err(Malformed),
    }
}

fn dict_put(line: &mut Line<'_>) -> Result<Answer, Malformed> {
    let (key, key_max, value_max) = (line.text()?, line.number()? as u32, line.number()? as u32);
    let (name, value) = (line.bytes()?, line.bytes()?);
    let put = Dictionary::make(&key, key_max, value_max)
        .and_then(|mut dictionary| dictionary.lock(Mode::Exclusive, WAIT)?.put(&name, &value));
    Ok(Answer::number(put.map(|()| 0)))
}

fn dict(line: &mut Line<'_>, name: &str) -> Result<Answer, Malformed> {
    let key = line.text()?;
    match name {
        "dict_length" => Ok(Answer::number(
            Dictionary::open(&key)
                .and_then(|mut dictionary| Ok(dictionary.lock(Mode::Shared, WAIT)?.len())),
        )),
        "dict_get" => {
            let name = line.bytes()?;
            Ok(Answer::bytes(Dictionary::open(&key).and_then(
                |mut dictionary| {
                    let locked = dictionary.lock(Mode::Shared, WAIT)?;
                    locked.get(&name).map(<[u8]>::to_vec).ok_or(Error::NotFound)
                },
            )))
        }
        "dict_remove" => {
            let name = line.bytes()?;
            let removed = Dictionary::open_mut(&key)
                .and_then(|mut dictionary| dictionary.lock(Mode::Exclusive, WAIT)?.remove(&name));
            let removed = removed.and_then(|was| if was { Ok(0) } else { Err(Error::NotFound) });
            Ok(Answer::number(removed))
        }
        _ => Err(Malformed),
    }
}
