// The calls between a reactor function and its node, for AssemblyScript.
//
// A reactor exports `handle(): i32` (run for every invocation, in a fresh sandbox) and may export
// `init(): i32` (run once, at deploy; its work is part of the image every invocation starts from).
// Both give 0 for success and the function's own error code otherwise.
//
// Beside this: `state` shares bytes with the other functions of the app, `chain` calls functions,
// `objects` are counters, matrices, lists and dictionaries shared without copies, and `calls` has
// the calls they are made of.

import { input_read, input_size, log_write, output_write } from "./calls";

export const enum Level {
  Error = 0,
  Warn = 1,
  Info = 2,
  Debug = 3,
}

/** The whole body of the request. */
export function input(): Uint8Array {
  const size = input_size();
  const body = new Uint8Array(size);
  const count = input_read(0, body.dataStart, size);
  return count == size ? body : body.subarray(0, count);
}

/** The body of the request as UTF-8 text. */
export function inputText(): string {
  const body = input();
  return String.UTF8.decodeUnsafe(body.dataStart, body.byteLength);
}

/** Appends bytes to the reply; false when the reply would pass the output limit. */
export function output(bytes: Uint8Array): bool {
  return output_write(bytes.dataStart, bytes.byteLength) == 0;
}

/** Appends text, as UTF-8, to the reply; false when the reply would pass the output limit. */
export function outputText(text: string): bool {
  const bytes = String.UTF8.encode(text);
  return output_write(changetype<usize>(bytes), bytes.byteLength) == 0;
}

/** Writes one line to the function's log. */
export function log(level: Level, text: string): void {
  const bytes = String.UTF8.encode(text);
  log_write(level, changetype<usize>(bytes), bytes.byteLength);
}
