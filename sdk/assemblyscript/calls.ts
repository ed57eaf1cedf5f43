// Generated from the table of host calls: `UPDATE_GENERATED=1 cargo nextest run -p hostcalls`.
//
// The calls as they are. Those that ask the platform give a number that is negative where they
// failed: `errorText` says what it means. `state`, `chain` and `objects` are made of them.

/** What a call answers that failed. */
export enum Errno {
  /** The function was not granted this: see `allow` in its manifest. */
  Denied = -1,
  /** There is nothing of this name. */
  NotFound = -2,
  /** An argument is out of its range or malformed. */
  Invalid = -3,
  /** Someone else was first: the version, or the lock, is another's. */
  Conflict = -4,
  /** It does not fit the buffer, or is over a limit on its size. */
  TooLarge = -5,
  /** A quota of the function, its app or the node is used up. */
  Exhausted = -6,
  /** The time to wait is over. */
  TimedOut = -7,
  /** What was asked for broke off: a function that was called failed. */
  Failed = -8,
  /** The platform could not do it, through no fault of the guest. */
  Unavailable = -9,
}

/** What an error means, as a sentence. */
export function errorText(error: i64): string {
  switch (<i32>error) {
    case -1: return "The function was not granted this: see `allow` in its manifest.";
    case -2: return "There is nothing of this name.";
    case -3: return "An argument is out of its range or malformed.";
    case -4: return "Someone else was first: the version, or the lock, is another's.";
    case -5: return "It does not fit the buffer, or is over a limit on its size.";
    case -6: return "A quota of the function, its app or the node is used up.";
    case -7: return "The time to wait is over.";
    case -8: return "What was asked for broke off: a function that was called failed.";
    case -9: return "The platform could not do it, through no fault of the guest.";
    default: return error < 0 ? "The platform refused, in a way unknown here." : "No error.";
  }
}

/** How long the request body is. Gives the size in bytes. */
@external("dunlin", "input_size")
export declare function input_size(): i32;

/** Copies part of the request body. Gives how many bytes were copied. */
@external("dunlin", "input_read")
export declare function input_read(offset: i32, out: usize, outLength: i32): i32;

/** Adds to the reply. Gives 0, or -1 if the reply would pass its limit. */
@external("dunlin", "output_write")
export declare function output_write(data: usize, dataLength: i32): i32;

/** Writes one log line. */
@external("dunlin", "log_write")
export declare function log_write(level: i32, data: usize, dataLength: i32): void;

/** How long the value of a key is. Gives the size in bytes. */
@external("dunlin", "state_size")
declare function state_size(key: usize, keyLength: i32): i64;

/** How long the value of a key is. Gives the size in bytes. */
export function stateSize(key: string): i64 {
  const keyBytes = String.UTF8.encode(key);
  return state_size(changetype<usize>(keyBytes), keyBytes.byteLength);
}

/**
 * Copies a whole value, as of one moment. `too-large` if it does not fit: nothing is copied then.
 * Gives the size in bytes, all of which were copied.
 */
@external("dunlin", "state_get")
declare function state_get(key: usize, keyLength: i32, out: usize, outLength: i32): i64;

/**
 * Copies a whole value, as of one moment. `too-large` if it does not fit: nothing is copied then.
 * Gives the size in bytes, all of which were copied.
 */
export function stateGet(key: string, out: Uint8Array): i64 {
  const keyBytes = String.UTF8.encode(key);
  return state_get(changetype<usize>(keyBytes), keyBytes.byteLength, out.dataStart, out.byteLength);
}

/**
 * Replaces a value, creating the key if need be. Where the grant says `durable`, it is on disk when
 * the call returns. Gives the new version.
 */
@external("dunlin", "state_set")
declare function state_set(key: usize, keyLength: i32, value: usize, valueLength: i32): i64;

/**
 * Replaces a value, creating the key if need be. Where the grant says `durable`, it is on disk when
 * the call returns. Gives the new version.
 */
export function stateSet(key: string, value: Uint8Array): i64 {
  const keyBytes = String.UTF8.encode(key);
  return state_set(
      changetype<usize>(keyBytes),
      keyBytes.byteLength,
      value.dataStart,
      value.byteLength);
}

/** Copies part of a value. Gives how many bytes were copied; less than asked at the end. */
@external("dunlin", "state_read")
declare function state_read(
    key: usize,
    keyLength: i32,
    offset: u64,
    out: usize,
    outLength: i32): i64;

/** Copies part of a value. Gives how many bytes were copied; less than asked at the end. */
export function stateRead(key: string, offset: u64, out: Uint8Array): i64 {
  const keyBytes = String.UTF8.encode(key);
  return state_read(
      changetype<usize>(keyBytes),
      keyBytes.byteLength,
      offset,
      out.dataStart,
      out.byteLength);
}

/**
 * Writes part of a value, which grows if need be; a gap is zeros. Durable keys have it on disk
 * after the next `state_push`. Gives the new version.
 */
@external("dunlin", "state_write")
declare function state_write(
    key: usize,
    keyLength: i32,
    offset: u64,
    data: usize,
    dataLength: i32): i64;

/**
 * Writes part of a value, which grows if need be; a gap is zeros. Durable keys have it on disk
 * after the next `state_push`. Gives the new version.
 */
export function stateWrite(key: string, offset: u64, data: Uint8Array): i64 {
  const keyBytes = String.UTF8.encode(key);
  return state_write(
      changetype<usize>(keyBytes),
      keyBytes.byteLength,
      offset,
      data.dataStart,
      data.byteLength);
}

/**
 * Adds to a number of 8 bytes, little-endian, in one step: no addition is lost, whether others add
 * by this call or by atomic instructions in a mapping. The sum wraps. A value that ends before has
 * zeros there. Of a durable value, this is safe after the next `state_push`. `too-large` also if
 * `out` has fewer than 8 bytes: nothing is added then. Gives 8, the bytes of the sum.
 */
@external("dunlin", "state_add")
declare function state_add(
    key: usize,
    keyLength: i32,
    offset: u64,
    amount: u64,
    out: usize,
    outLength: i32): i64;

/**
 * Adds to a number of 8 bytes, little-endian, in one step: no addition is lost, whether others add
 * by this call or by atomic instructions in a mapping. The sum wraps. A value that ends before has
 * zeros there. Of a durable value, this is safe after the next `state_push`. `too-large` also if
 * `out` has fewer than 8 bytes: nothing is added then. Gives 8, the bytes of the sum.
 */
export function stateAdd(key: string, offset: u64, amount: u64, out: Uint8Array): i64 {
  const keyBytes = String.UTF8.encode(key);
  return state_add(
      changetype<usize>(keyBytes),
      keyBytes.byteLength,
      offset,
      amount,
      out.dataStart,
      out.byteLength);
}

/**
 * Adds to the end of a value. Appends of several functions do not mix. Gives the offset at which
 * the data begin.
 */
@external("dunlin", "state_append")
declare function state_append(key: usize, keyLength: i32, data: usize, dataLength: i32): i64;

/**
 * Adds to the end of a value. Appends of several functions do not mix. Gives the offset at which
 * the data begin.
 */
export function stateAppend(key: string, data: Uint8Array): i64 {
  const keyBytes = String.UTF8.encode(key);
  return state_append(
      changetype<usize>(keyBytes),
      keyBytes.byteLength,
      data.dataStart,
      data.byteLength);
}

/** Makes a value shorter, or longer with zeros. Gives the new version. */
@external("dunlin", "state_truncate")
declare function state_truncate(key: usize, keyLength: i32, size: u64): i64;

/** Makes a value shorter, or longer with zeros. Gives the new version. */
export function stateTruncate(key: string, size: u64): i64 {
  const keyBytes = String.UTF8.encode(key);
  return state_truncate(changetype<usize>(keyBytes), keyBytes.byteLength, size);
}

/**
 * Removes a key. Sandboxes that have it mapped keep the bytes they see until they are reset. Gives
 * 0.
 */
@external("dunlin", "state_delete")
declare function state_delete(key: usize, keyLength: i32): i64;

/**
 * Removes a key. Sandboxes that have it mapped keep the bytes they see until they are reset. Gives
 * 0.
 */
export function stateDelete(key: string): i64 {
  const keyBytes = String.UTF8.encode(key);
  return state_delete(changetype<usize>(keyBytes), keyBytes.byteLength);
}

/**
 * Writes the names of keys in order, each followed by a newline, as many as fit. Gives how many
 * bytes were written.
 */
@external("dunlin", "state_list")
declare function state_list(
    prefix: usize,
    prefixLength: i32,
    after: usize,
    afterLength: i32,
    out: usize,
    outLength: i32): i64;

/**
 * Writes the names of keys in order, each followed by a newline, as many as fit. Gives how many
 * bytes were written.
 */
export function stateList(prefix: string, after: string, out: Uint8Array): i64 {
  const prefixBytes = String.UTF8.encode(prefix);
  const afterBytes = String.UTF8.encode(after);
  return state_list(
      changetype<usize>(prefixBytes),
      prefixBytes.byteLength,
      changetype<usize>(afterBytes),
      afterBytes.byteLength,
      out.dataStart,
      out.byteLength);
}

/** The version of a value: it changes with every change, and none comes twice. Gives the version. */
@external("dunlin", "state_version")
declare function state_version(key: usize, keyLength: i32): i64;

/** The version of a value: it changes with every change, and none comes twice. Gives the version. */
export function stateVersion(key: string): i64 {
  const keyBytes = String.UTF8.encode(key);
  return state_version(changetype<usize>(keyBytes), keyBytes.byteLength);
}

/** Replaces a value if nobody changed it since `expected`: compare and swap. Gives the new version. */
@external("dunlin", "state_swap")
declare function state_swap(
    key: usize,
    keyLength: i32,
    expected: u64,
    value: usize,
    valueLength: i32): i64;

/** Replaces a value if nobody changed it since `expected`: compare and swap. Gives the new version. */
export function stateSwap(key: string, expected: u64, value: Uint8Array): i64 {
  const keyBytes = String.UTF8.encode(key);
  return state_swap(
      changetype<usize>(keyBytes),
      keyBytes.byteLength,
      expected,
      value.dataStart,
      value.byteLength);
}

/** Sets when a key goes by itself. Gives 0. */
@external("dunlin", "state_expire")
declare function state_expire(key: usize, keyLength: i32, ttlMs: u64): i64;

/** Sets when a key goes by itself. Gives 0. */
export function stateExpire(key: string, ttlMs: u64): i64 {
  const keyBytes = String.UTF8.encode(key);
  return state_expire(changetype<usize>(keyBytes), keyBytes.byteLength, ttlMs);
}

/**
 * Takes the lock of a key, which need not exist. First come, first served. It is free again when it
 * is unlocked, when its time is over, or when the invocation ends. Gives 0.
 */
@external("dunlin", "state_lock")
declare function state_lock(key: usize, keyLength: i32, mode: u32, waitMs: u64, holdMs: u64): i64;

/**
 * Takes the lock of a key, which need not exist. First come, first served. It is free again when it
 * is unlocked, when its time is over, or when the invocation ends. Gives 0.
 */
export function stateLock(key: string, mode: u32, waitMs: u64, holdMs: u64): i64 {
  const keyBytes = String.UTF8.encode(key);
  return state_lock(changetype<usize>(keyBytes), keyBytes.byteLength, mode, waitMs, holdMs);
}

/**
 * Gives a lock back. `not-found` if the invocation does not hold it, which may be because its time
 * was over. Gives 0.
 */
@external("dunlin", "state_unlock")
declare function state_unlock(key: usize, keyLength: i32): i64;

/**
 * Gives a lock back. `not-found` if the invocation does not hold it, which may be because its time
 * was over. Gives 0.
 */
export function stateUnlock(key: string): i64 {
  const keyBytes = String.UTF8.encode(key);
  return state_unlock(changetype<usize>(keyBytes), keyBytes.byteLength);
}

/**
 * Makes the bytes of a value part of the sandbox's own memory, until it ends: no copy, and what one
 * function writes, others on the node see. To write, the value is made at least `offset + len`
 * long. A mapping to read shows the live bytes; writing to it is an error that ends the call. Gives
 * the address of the byte at `offset`.
 */
@external("dunlin", "state_map")
declare function state_map(key: usize, keyLength: i32, offset: u64, len: u64, mode: u32): i64;

/**
 * Makes the bytes of a value part of the sandbox's own memory, until it ends: no copy, and what one
 * function writes, others on the node see. To write, the value is made at least `offset + len`
 * long. A mapping to read shows the live bytes; writing to it is an error that ends the call. Gives
 * the address of the byte at `offset`.
 */
export function stateMap(key: string, offset: u64, len: u64, mode: u32): i64 {
  const keyBytes = String.UTF8.encode(key);
  return state_map(changetype<usize>(keyBytes), keyBytes.byteLength, offset, len, mode);
}

/**
 * Makes what was written to part of a value as safe as its durability says: of a durable key, the
 * chunks that changed are on disk when the call returns. Gives the version that is safe now.
 */
@external("dunlin", "state_push")
declare function state_push(key: usize, keyLength: i32, offset: u64, len: u64): i64;

/**
 * Makes what was written to part of a value as safe as its durability says: of a durable key, the
 * chunks that changed are on disk when the call returns. Gives the version that is safe now.
 */
export function statePush(key: string, offset: u64, len: u64): i64 {
  const keyBytes = String.UTF8.encode(key);
  return state_push(changetype<usize>(keyBytes), keyBytes.byteLength, offset, len);
}

/**
 * Loads part of a value to the node, so that reading it does not wait. Gives the version that was
 * loaded.
 */
@external("dunlin", "state_pull")
declare function state_pull(key: usize, keyLength: i32, offset: u64, len: u64): i64;

/**
 * Loads part of a value to the node, so that reading it does not wait. Gives the version that was
 * loaded.
 */
export function statePull(key: string, offset: u64, len: u64): i64 {
  const keyBytes = String.UTF8.encode(key);
  return state_pull(changetype<usize>(keyBytes), keyBytes.byteLength, offset, len);
}

/**
 * Calls a function and waits until it has ended, well or badly: see `chain_size`. Gives a handle on
 * the reply.
 */
@external("dunlin", "chain_call")
declare function chain_call(
    functionName: usize,
    functionNameLength: i32,
    input: usize,
    inputLength: i32): i64;

/**
 * Calls a function and waits until it has ended, well or badly: see `chain_size`. Gives a handle on
 * the reply.
 */
export function chainCall(functionName: string, input: Uint8Array): i64 {
  const functionNameBytes = String.UTF8.encode(functionName);
  return chain_call(
      changetype<usize>(functionNameBytes),
      functionNameBytes.byteLength,
      input.dataStart,
      input.byteLength);
}

/**
 * Starts a call and goes on. Unless it is detached, it is cancelled when the caller ends. Gives a
 * handle on the call.
 */
@external("dunlin", "chain_spawn")
declare function chain_spawn(
    functionName: usize,
    functionNameLength: i32,
    input: usize,
    inputLength: i32,
    flags: u32): i64;

/**
 * Starts a call and goes on. Unless it is detached, it is cancelled when the caller ends. Gives a
 * handle on the call.
 */
export function chainSpawn(functionName: string, input: Uint8Array, flags: u32): i64 {
  const functionNameBytes = String.UTF8.encode(functionName);
  return chain_spawn(
      changetype<usize>(functionNameBytes),
      functionNameBytes.byteLength,
      input.dataStart,
      input.byteLength,
      flags);
}

/** Waits for a call. `failed` if it ended badly, `timed-out` if it goes on. Gives 0: it ended well. */
@external("dunlin", "chain_wait")
declare function chain_wait(handle: u32, waitMs: u64): i64;

/** Waits for a call. `failed` if it ended badly, `timed-out` if it goes on. Gives 0: it ended well. */
export function chainWait(handle: u32, waitMs: u64): i64 {
  return chain_wait(handle, waitMs);
}

/** Waits until one of several calls has ended. Gives the place in the list of one that has ended. */
@external("dunlin", "chain_wait_any")
declare function chain_wait_any(handles: usize, handlesLength: i32, waitMs: u64): i64;

/** Waits until one of several calls has ended. Gives the place in the list of one that has ended. */
export function chainWaitAny(handles: Uint8Array, waitMs: u64): i64 {
  return chain_wait_any(handles.dataStart, handles.byteLength, waitMs);
}

/** Waits until all of several calls have ended. Gives how many of them failed. */
@external("dunlin", "chain_wait_all")
declare function chain_wait_all(handles: usize, handlesLength: i32, waitMs: u64): i64;

/** Waits until all of several calls have ended. Gives how many of them failed. */
export function chainWaitAll(handles: Uint8Array, waitMs: u64): i64 {
  return chain_wait_all(handles.dataStart, handles.byteLength, waitMs);
}

/**
 * How long a reply is. `failed` if the call ended badly, `timed-out` if it goes on. Gives the size
 * of the reply in bytes.
 */
@external("dunlin", "chain_size")
declare function chain_size(handle: u32): i64;

/**
 * How long a reply is. `failed` if the call ended badly, `timed-out` if it goes on. Gives the size
 * of the reply in bytes.
 */
export function chainSize(handle: u32): i64 {
  return chain_size(handle);
}

/** Copies part of a reply. Gives how many bytes were copied; less than asked at the end. */
@external("dunlin", "chain_read")
declare function chain_read(handle: u32, offset: u64, out: usize, outLength: i32): i64;

/** Copies part of a reply. Gives how many bytes were copied; less than asked at the end. */
export function chainRead(handle: u32, offset: u64, out: Uint8Array): i64 {
  return chain_read(handle, offset, out.dataStart, out.byteLength);
}

/**
 * Why a call failed, as text cut to fit; nothing if it ended well. Gives how many bytes were
 * copied.
 */
@external("dunlin", "chain_problem")
declare function chain_problem(handle: u32, out: usize, outLength: i32): i64;

/**
 * Why a call failed, as text cut to fit; nothing if it ended well. Gives how many bytes were
 * copied.
 */
export function chainProblem(handle: u32, out: Uint8Array): i64 {
  return chain_problem(handle, out.dataStart, out.byteLength);
}

/** The invocation's id: 32 hexadecimal digits. Gives how many bytes were copied. */
@external("dunlin", "chain_id")
declare function chain_id(handle: u32, out: usize, outLength: i32): i64;

/** The invocation's id: 32 hexadecimal digits. Gives how many bytes were copied. */
export function chainId(handle: u32, out: Uint8Array): i64 {
  return chain_id(handle, out.dataStart, out.byteLength);
}

/** Forgets a call and its reply. One that still runs is cancelled, unless it is detached. Gives 0. */
@external("dunlin", "chain_close")
declare function chain_close(handle: u32): i64;

/** Forgets a call and its reply. One that still runs is cancelled, unless it is detached. Gives 0. */
export function chainClose(handle: u32): i64 {
  return chain_close(handle);
}

