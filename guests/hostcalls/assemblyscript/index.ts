// Does what a script says, by the SDK for AssemblyScript. See ../README.md.
import * as calls from "../../../sdk/assemblyscript/calls";
import { Errno } from "../../../sdk/assemblyscript/calls";
import * as chain from "../../../sdk/assemblyscript/chain";
import { Dictionary } from "../../../sdk/assemblyscript/dictionary";
import { inputText } from "../../../sdk/assemblyscript/dunlin";
import {
  Counter, List, makeMatrix, makeSparse, openMatrix, openSparse, openVector,
} from "../../../sdk/assemblyscript/objects";
import * as state from "../../../sdk/assemblyscript/state";
import { dispatch } from "./dispatch";
import { Line } from "./script";

const WAIT_MS: u64 = 10000;
const LINES_MAX = 256;
const CALLS_MAX: u64 = 64;

function bitsOf(number: f64): i64 {
  return reinterpret<i64>(number);
}

/** The calls that move the payload; false if this is another. */
function payload(line: Line): bool {
  const name = line.name;
  if (name == "input_size") {
    if (line.isTaken) line.answer(calls.input_size());
  } else if (name == "input_read") {
    const offset = line.number();
    const out = line.out();
    if (!line.isTaken) return true;
    const count = calls.input_read(<i32>offset, out.dataStart, out.byteLength);
    line.answerFilled(count, out);
  } else if (name == "output_write") {
    const data = line.bytes();
    if (line.isTaken) line.answer(calls.output_write(data.dataStart, data.byteLength));
  } else if (name == "log_write") {
    const level = line.number();
    const data = line.bytes();
    if (!line.isTaken) return true;
    calls.log_write(<i32>level, data.dataStart, data.byteLength);
    line.answer(0);
  } else {
    return false;
  }
  return true;
}

function touchMemory(line: Line): void {
  const at = <usize>line.number();
  const isPeek = line.name == "peek";
  const data = isPeek ? line.out() : line.bytes();
  if (!line.isTaken) return;
  if (isPeek) {
    memory.copy(data.dataStart, at, data.byteLength);
    line.answerFilled(data.byteLength, data);
  } else {
    memory.copy(at, data.dataStart, data.byteLength);
    line.answer(data.byteLength);
  }
}

function call(line: Line): void {
  const name = line.text();
  const input = line.bytes();
  if (!line.isTaken) return;
  const reply = chain.call(name, input);
  if (reply.ok) line.answerWith(reply.bytes.byteLength, reply.bytes);
  else if (reply.error == Errno.Failed) line.answerWith(reply.error, reply.bytes);
  else line.answer(reply.error);
}

function fan(line: Line): void {
  const name = line.text();
  const input = line.bytes();
  const count = line.number();
  if (count > CALLS_MAX) line.isMalformed = true;
  if (!line.isTaken) return;
  const started = new Array<chain.Call>();
  for (let i: u64 = 0; i < count; i++) {
    const one = chain.spawn(name, input);
    if (!one.ok) return line.answer(one.error);
    started.push(one.value);
  }
  if (line.name == "any") return line.answerOutcome(chain.any(started, WAIT_MS));
  const failed = chain.all(started, WAIT_MS);
  if (!failed.ok) return line.answer(failed.error);
  let replies = new Uint8Array(0);
  for (let i = 0; i < started.length; i++) {
    const reply = started[i].reply();
    if (!reply.ok) continue;
    const longer = new Uint8Array(replies.length + reply.bytes.length);
    longer.set(replies);
    longer.set(reply.bytes, replies.length);
    replies = longer;
  }
  line.answerWith(failed.value, replies);
}

function addLocked(key: string, count: u64): i64 {
  const held = state.lock(key, state.Mode.Exclusive, WAIT_MS);
  if (!held.ok) return held.error;
  const bytes = new Uint8Array(8);
  let result = calls.stateGet(key, bytes);
  if (result >= 0 || result == Errno.NotFound) {
    const value = load<u64>(bytes.dataStart) + count;
    store<u64>(bytes.dataStart, value);
    result = calls.stateSet(key, bytes);
    if (result >= 0) result = <i64>value;
  }
  held.value.release();
  return result;
}

function lockedAdd(line: Line): void {
  const key = line.text();
  const count = line.number();
  const times = line.number();
  if (!line.isTaken) return;
  let result: i64 = 0;
  for (let i: u64 = 0; i < times && result >= 0; i++) result = addLocked(key, count);
  line.answer(result);
}

function counter(line: Line, isAdd: bool): void {
  const key = line.text();
  const count = isAdd ? line.number() : 0;
  const times = isAdd ? line.number() : 0;
  if (!line.isTaken) return;
  const counter = Counter.open(key);
  if (!counter.ok) return line.answer(counter.error);
  let value: u64 = isAdd ? 0 : counter.value.value;
  for (let i: u64 = 0; i < times; i++) value = counter.value.add(count);
  line.answer(<i64>value);
}

function vector(line: Line, isPut: bool): void {
  const key = line.text();
  const length = isPut ? line.number() : 0;
  const at = line.number();
  const bits = isPut ? line.number() : 0;
  if (!line.isTaken) return;
  const access = isPut ? state.Access.Write : state.Access.Read;
  const vector = openVector<f64>(key, <i32>length, access);
  if (!vector.ok) return line.answer(vector.error);
  const view = vector.value;
  if (at >= <u64>view.length) return line.answer(Errno.Invalid);
  if (isPut) view[<i32>at] = reinterpret<f64>(bits);
  line.answer(isPut ? 0 : bitsOf(view[<i32>at]));
}

function matrix(line: Line, isPut: bool): void {
  const key = line.text();
  const rows = isPut ? line.number() : 0;
  const cols = isPut ? line.number() : 0;
  const row = line.number();
  const col = line.number();
  const bits = isPut ? line.number() : 0;
  if (!line.isTaken) return;
  const matrix = isPut
    ? makeMatrix<f64>(key, <i32>rows, <i32>cols)
    : openMatrix<f64>(key, state.Access.Read);
  if (!matrix.ok) return line.answer(matrix.error);
  const cells = matrix.value;
  if (row >= <u64>cells.rows || col >= <u64>cells.cols) return line.answer(Errno.Invalid);
  if (isPut) cells.put(<i32>row, <i32>col, reinterpret<f64>(bits));
  line.answer(isPut ? 0 : bitsOf(cells.at(<i32>row, <i32>col)));
}

function sparsePut(line: Line): void {
  const key = line.text();
  const rows = <i32>line.number();
  const cols = <i32>line.number();
  const entries = line.bytes();
  if (!line.isTaken) return;
  const count = entries.byteLength / 16;
  const made = makeSparse<f64>(key, rows, cols, count);
  if (!made.ok) return line.answer(made.error);
  const sparse = made.value;
  let at = 0;
  for (let row = 0; row < rows; row++) {
    sparse.starts[row] = at;
    for (; at < count; at++) {
      const entry = entries.dataStart + 16 * <usize>at;
      if (load<u32>(entry) != <u32>row) break;
      sparse.columns[at] = load<u32>(entry, 4);
      sparse.values[at] = load<f64>(entry, 8);
    }
  }
  sparse.starts[rows] = at;
  line.answer(min<i64>(sparse.publish().error, 0));
}

function sparseAt(line: Line): void {
  const key = line.text();
  const row = line.number();
  const col = line.number();
  if (!line.isTaken) return;
  const sparse = openSparse<f64>(key, state.Access.Read);
  line.answer(sparse.ok ? bitsOf(sparse.value.at(<i32>row, <u32>col)) : sparse.error);
}

function list(line: Line): void {
  const key = line.text();
  if (line.name == "list_add") {
    const record = line.bytes();
    if (line.isTaken) line.answerOutcome(new List(key, record.byteLength).add(record));
    return;
  }
  const recordBytes = line.number();
  const place = line.name == "list_at" ? line.number() : 0;
  if (!line.isTaken) return;
  const list = new List(key, <i32>recordBytes);
  if (line.name == "list_at") line.answerBytes(list.at(place));
  else line.answerOutcome(list.length());
}

function dictPut(line: Line): void {
  const key = line.text();
  const keyMax = line.number();
  const valueMax = line.number();
  const name = line.bytes();
  const value = line.bytes();
  if (!line.isTaken) return;
  const dictionary = Dictionary.make(key, <u32>keyMax, <u32>valueMax);
  if (!dictionary.ok) return line.answer(dictionary.error);
  const held = state.lock(key, state.Mode.Exclusive, WAIT_MS);
  if (!held.ok) return line.answer(held.error);
  const error = dictionary.value.put(name, value);
  held.value.release();
  line.answer(error);
}

function dict(line: Line): void {
  const key = line.text();
  const command = line.name;
  const name = command == "dict_length" ? new Uint8Array(0) : line.bytes();
  if (!line.isTaken) return;
  const isRemove = command == "dict_remove";
  const access = isRemove ? state.Access.Write : state.Access.Read;
  const opened = Dictionary.open(key, access);
  if (!opened.ok) return line.answer(opened.error);
  const mode = isRemove ? state.Mode.Exclusive : state.Mode.Shared;
  const held = state.lock(key, mode, WAIT_MS);
  if (!held.ok) return line.answer(held.error);
  if (isRemove) line.answer(opened.value.remove(name));
  else if (command == "dict_length") line.answer(<i64>opened.value.length);
  else line.answerBytes(opened.value.get(name));
  held.value.release();
}

function get(line: Line): void {
  const key = line.text();
  if (line.isTaken) line.answerBytes(state.get(key));
}

function run(line: Line): void {
  const name = line.name;
  if (payload(line)) return;
  if (dispatch(line, name)) return;
  if (name == "peek" || name == "poke") touchMemory(line);
  else if (name == "get") get(line);
  else if (name == "call") call(line);
  else if (name == "fan" || name == "any") fan(line);
  else if (name == "locked_add") lockedAdd(line);
  else if (name.startsWith("counter_")) counter(line, name == "counter_add");
  else if (name.startsWith("vector_")) vector(line, name == "vector_put");
  else if (name.startsWith("matrix_")) matrix(line, name == "matrix_put");
  else if (name == "sparse_put") sparsePut(line);
  else if (name == "sparse_at") sparseAt(line);
  else if (name.startsWith("list_")) list(line);
  else if (name == "dict_put") dictPut(line);
  else if (name.startsWith("dict_")) dict(line);
  else line.isMalformed = true;
}

export function handle(): i32 {
  const lines = inputText().split("\n");
  const results = new Array<i64>();
  for (let i = 0; i < lines.length && results.length < LINES_MAX; i++) {
    if (lines[i].length == 0) continue;
    const line = new Line(lines[i], results);
    run(line);
    if (line.isMalformed) line.refuse();
  }
  return 0;
}
