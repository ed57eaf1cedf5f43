// Calls of other functions. What may fail gives an `Outcome`.
import * as calls from "./calls";
import { Errno } from "./calls";
import { Outcome, failure, outcomeOf } from "./outcome";

/** To wait as long as the invocation itself may run. */
export const FOREVER: u64 = 86400000;

/** For `spawn`: the call goes on when its caller ends. */
export const DETACHED: u32 = 1;

/** What a call came to. */
export class Reply {
  constructor(
    /** 0; `Errno.Failed` if the function failed; or why there was no call. */
    public readonly error: i64,
    /** The reply, or why the function failed, as UTF-8. */
    public readonly bytes: Uint8Array,
  ) {}

  get ok(): bool {
    return this.error == 0;
  }

  /** The reply, or why the function failed, as text. */
  get text(): string {
    return String.UTF8.decodeUnsafe(this.bytes.dataStart, this.bytes.byteLength);
  }
}

/** A call that was started. */
export class Call {
  constructor(public readonly handle: u32) {}

  /**
   * Waits until it has ended, takes its reply and forgets it. One that goes on (`Errno.TimedOut`)
   * is not forgotten.
   */
  reply(waitMs: u64 = FOREVER): Reply {
    const error = calls.chainWait(this.handle, waitMs);
    if (error == Errno.TimedOut) return new Reply(error, new Uint8Array(0));
    const reply = error == Errno.Failed ? this.problem() : this.take(error);
    calls.chainClose(this.handle);
    return reply;
  }

  /** Forgets it; one that still runs is cancelled, unless it is detached. */
  close(): i64 {
    return calls.chainClose(this.handle);
  }

  private problem(): Reply {
    const text = new Uint8Array(1000);
    const count = calls.chainProblem(this.handle, text);
    return new Reply(Errno.Failed, text.subarray(0, <i32>max<i64>(count, 0)));
  }

  private take(error: i64): Reply {
    const size = error < 0 ? error : calls.chainSize(this.handle);
    if (size < 0) return new Reply(size, new Uint8Array(0));
    const bytes = new Uint8Array(<i32>size);
    const count = calls.chainRead(this.handle, 0, bytes);
    return new Reply(min<i64>(count, 0), bytes.subarray(0, <i32>max<i64>(count, 0)));
  }
}

/** Calls a function and waits for its reply. */
export function call(name: string, input: Uint8Array): Reply {
  const handle = calls.chainCall(name, input);
  if (handle < 0) return new Reply(handle, new Uint8Array(0));
  return new Call(<u32>handle).reply();
}

/** Starts a call; `flags` is 0 or `DETACHED`. */
export function spawn(name: string, input: Uint8Array, flags: u32 = 0): Outcome<Call> {
  const handle = calls.chainSpawn(name, input, flags);
  if (handle < 0) return failure<Call>(handle);
  return new Outcome<Call>(new Call(<u32>handle));
}

/** Waits until one of the calls has ended; gives its place. */
export function any(started: Call[], waitMs: u64): Outcome<i64> {
  return outcomeOf(calls.chainWaitAny(handlesOf(started), waitMs));
}

/** Waits until all of the calls have ended; gives how many of them failed. */
export function all(started: Call[], waitMs: u64): Outcome<i64> {
  return outcomeOf(calls.chainWaitAll(handlesOf(started), waitMs));
}

function handlesOf(started: Call[]): Uint8Array {
  const handles = new Uint8Array(4 * started.length);
  for (let i = 0; i < started.length; i++) {
    store<u32>(handles.dataStart + 4 * <usize>i, started[i].handle);
  }
  return handles;
}
