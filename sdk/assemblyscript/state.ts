// Bytes under keys, which the functions of an app share. What may fail gives an `Outcome`.
import * as calls from "./calls";
import { Errno } from "./calls";
import { Outcome, failure, outcomeOf } from "./outcome";

/** How often a buffer grows because the value grew meanwhile. */
const GET_TRIES_MAX = 8;

/** How a lock is held. */
export enum Mode {
  Shared = 0,
  Exclusive = 1,
}

/** What a mapping is for. */
export enum Access {
  Read = 0,
  Write = 1,
}

/** How long a value is. */
export function size(key: string): Outcome<i64> {
  return outcomeOf(calls.stateSize(key));
}

/** A whole value. */
export function get(key: string): Outcome<Uint8Array> {
  let value = new Uint8Array(4096);
  for (let tries = 0; tries < GET_TRIES_MAX; tries++) {
    const count = calls.stateGet(key, value);
    if (count >= 0) return new Outcome<Uint8Array>(value.subarray(0, <i32>count));
    if (count != Errno.TooLarge) return failure<Uint8Array>(count);
    const now = calls.stateSize(key);
    if (now < 0) return failure<Uint8Array>(now);
    if (now > i32.MAX_VALUE) break;
    value = new Uint8Array(<i32>now);
  }
  return failure<Uint8Array>(Errno.TooLarge);
}

/** Replaces a value; gives its new version. */
export function set(key: string, value: Uint8Array): Outcome<i64> {
  return outcomeOf(calls.stateSet(key, value));
}

/** Makes what was written to a value as safe as its durability says; gives the version. */
export function push(key: string): Outcome<i64> {
  return outcomeOf(calls.statePush(key, 0, 0));
}

/** A lock that is held until it is released, or the invocation ends. */
export class Lock {
  constructor(private key: string) {}

  /** Gives it back; `Errno.NotFound` if its time was over. */
  release(): i64 {
    return calls.stateUnlock(this.key);
  }
}

/** Takes the lock of a key. */
export function lock(key: string, mode: Mode, waitMs: u64): Outcome<Lock> {
  const error = calls.stateLock(key, <u32>mode, waitMs, 0);
  return error < 0 ? failure<Lock>(error) : new Outcome<Lock>(new Lock(key));
}

/** Memory that is shared with every function that maps it, as a row of numbers. */
export class View<T> {
  constructor(/** Where it begins. */ public readonly at: usize, public readonly length: i32) {}

  @operator("[]") get(place: i32): T {
    if (<u32>place >= <u32>this.length) throw new RangeError("beyond the end of a view");
    return load<T>(this.at + <usize>place * sizeof<T>());
  }

  @operator("[]=") set(place: i32, number: T): void {
    if (<u32>place >= <u32>this.length) throw new RangeError("beyond the end of a view");
    store<T>(this.at + <usize>place * sizeof<T>(), number);
  }
}

/**
 * `count` numbers of a value from byte `offset` on, or all up to its end if 0. To write makes the
 * value long enough.
 */
export function map<T>(key: string, offset: u64, count: i32, access: Access): Outcome<View<T>> {
  if (count == 0 || access == Access.Read) {
    const size = calls.stateSize(key);
    if (size < 0) return failure<View<T>>(size);
    const there = <u64>size < offset ? 0 : (<u64>size - offset) / sizeof<T>();
    if (count == 0) count = <i32>min<u64>(there, i32.MAX_VALUE);
    if (count == 0) return new Outcome<View<T>>(new View<T>(0, 0));
    if (access == Access.Read && <u64>count > there) return failure<View<T>>(Errno.NotFound);
  }
  const at = calls.stateMap(key, offset, <u64>count * sizeof<T>(), <u32>access);
  if (at < 0) return failure<View<T>>(at);
  if (at % sizeof<T>() != 0) return failure<View<T>>(Errno.Invalid);
  return new Outcome<View<T>>(new View<T>(<usize>at, count));
}
