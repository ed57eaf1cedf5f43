// Generated from the table of host calls: `UPDATE_GENERATED=1 cargo nextest run -p hostcalls`.
import * as calls from "../../../sdk/assemblyscript/calls";
import { Line } from "./script";

/** Makes the call of this name; false if there is none. */
export function dispatch(line: Line, name: string): bool {
  if (name == "state_size") {
    const key = line.text();
    if (!line.isTaken) return true;
    line.answer(calls.stateSize(key));
    return true;
  }
  if (name == "state_get") {
    const key = line.text();
    const out = line.out();
    if (!line.isTaken) return true;
    line.answerFilled(calls.stateGet(key, out), out);
    return true;
  }
  if (name == "state_set") {
    const key = line.text();
    const value = line.bytes();
    if (!line.isTaken) return true;
    line.answer(calls.stateSet(key, value));
    return true;
  }
  if (name == "state_read") {
    const key = line.text();
    const offset = line.number();
    const out = line.out();
    if (!line.isTaken) return true;
    line.answerFilled(calls.stateRead(key, offset, out), out);
    return true;
  }
  if (name == "state_write") {
    const key = line.text();
    const offset = line.number();
    const data = line.bytes();
    if (!line.isTaken) return true;
    line.answer(calls.stateWrite(key, offset, data));
    return true;
  }
  if (name == "state_add") {
    const key = line.text();
    const offset = line.number();
    const amount = line.number();
    const out = line.out();
    if (!line.isTaken) return true;
    line.answerFilled(calls.stateAdd(key, offset, amount, out), out);
    return true;
  }
  if (name == "state_append") {
    const key = line.text();
    const data = line.bytes();
    if (!line.isTaken) return true;
    line.answer(calls.stateAppend(key, data));
    return true;
  }
  if (name == "state_truncate") {
    const key = line.text();
    const size = line.number();
    if (!line.isTaken) return true;
    line.answer(calls.stateTruncate(key, size));
    return true;
  }
  if (name == "state_delete") {
    const key = line.text();
    if (!line.isTaken) return true;
    line.answer(calls.stateDelete(key));
    return true;
  }
  if (name == "state_list") {
    const prefix = line.text();
    const after = line.text();
    const out = line.out();
    if (!line.isTaken) return true;
    line.answerFilled(calls.stateList(prefix, after, out), out);
    return true;
  }
  if (name == "state_version") {
    const key = line.text();
    if (!line.isTaken) return true;
    line.answer(calls.stateVersion(key));
    return true;
  }
  if (name == "state_swap") {
    const key = line.text();
    const expected = line.number();
    const value = line.bytes();
    if (!line.isTaken) return true;
    line.answer(calls.stateSwap(key, expected, value));
    return true;
  }
  if (name == "state_expire") {
    const key = line.text();
    const ttlMs = line.number();
    if (!line.isTaken) return true;
    line.answer(calls.stateExpire(key, ttlMs));
    return true;
  }
  if (name == "state_lock") {
    const key = line.text();
    const mode = line.number();
    const waitMs = line.number();
    const holdMs = line.number();
    if (!line.isTaken) return true;
    line.answer(calls.stateLock(key, <u32>mode, waitMs, holdMs));
    return true;
  }
  if (name == "state_unlock") {
    const key = line.text();
    if (!line.isTaken) return true;
    line.answer(calls.stateUnlock(key));
    return true;
  }
  if (name == "state_map") {
    const key = line.text();
    const offset = line.number();
    const len = line.number();
    const mode = line.number();
    if (!line.isTaken) return true;
    line.answer(calls.stateMap(key, offset, len, <u32>mode));
    return true;
  }
  if (name == "state_push") {
    const key = line.text();
    const offset = line.number();
    const len = line.number();
    if (!line.isTaken) return true;
    line.answer(calls.statePush(key, offset, len));
    return true;
  }
  if (name == "state_pull") {
    const key = line.text();
    const offset = line.number();
    const len = line.number();
    if (!line.isTaken) return true;
    line.answer(calls.statePull(key, offset, len));
    return true;
  }
  if (name == "chain_call") {
    const functionName = line.text();
    const input = line.bytes();
    if (!line.isTaken) return true;
    line.answer(calls.chainCall(functionName, input));
    return true;
  }
  if (name == "chain_spawn") {
    const functionName = line.text();
    const input = line.bytes();
    const flags = line.number();
    if (!line.isTaken) return true;
    line.answer(calls.chainSpawn(functionName, input, <u32>flags));
    return true;
  }
  if (name == "chain_wait") {
    const handle = line.number();
    const waitMs = line.number();
    if (!line.isTaken) return true;
    line.answer(calls.chainWait(<u32>handle, waitMs));
    return true;
  }
  if (name == "chain_wait_any") {
    const handles = line.bytes();
    const waitMs = line.number();
    if (!line.isTaken) return true;
    line.answer(calls.chainWaitAny(handles, waitMs));
    return true;
  }
  if (name == "chain_wait_all") {
    const handles = line.bytes();
    const waitMs = line.number();
    if (!line.isTaken) return true;
    line.answer(calls.chainWaitAll(handles, waitMs));
    return true;
  }
  if (name == "chain_size") {
    const handle = line.number();
    if (!line.isTaken) return true;
    line.answer(calls.chainSize(<u32>handle));
    return true;
  }
  if (name == "chain_read") {
    const handle = line.number();
    const offset = line.number();
    const out = line.out();
    if (!line.isTaken) return true;
    line.answerFilled(calls.chainRead(<u32>handle, offset, out), out);
    return true;
  }
  if (name == "chain_problem") {
    const handle = line.number();
    const out = line.out();
    if (!line.isTaken) return true;
    line.answerFilled(calls.chainProblem(<u32>handle, out), out);
    return true;
  }
  if (name == "chain_id") {
    const handle = line.number();
    const out = line.out();
    if (!line.isTaken) return true;
    line.answerFilled(calls.chainId(<u32>handle, out), out);
    return true;
  }
  if (name == "chain_close") {
    const handle = line.number();
    if (!line.isTaken) return true;
    line.answer(calls.chainClose(<u32>handle));
    return true;
  }
  return false;
}
