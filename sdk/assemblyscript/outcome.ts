// A value, or why there is none: what calls of the platform give in AssemblyScript, which has no
// exceptions that a program could catch. `value` aborts where there is none.
import { errorText } from "./calls";

export class Outcome<T> {
  constructor(private held: T, /** 0, or an `Errno`. */ public readonly error: i64 = 0) {}

  get ok(): bool {
    return this.error == 0;
  }

  /** The value; aborts the function where there is none. */
  get value(): T {
    if (this.error != 0) throw new Error(errorText(this.error));
    return this.held;
  }

  /** The value, or another where there is none. */
  or(other: T): T {
    return this.error != 0 ? other : this.held;
  }
}

/** No value, for this reason. */
export function failure<T>(error: i64): Outcome<T> {
  if (isReference<T>()) return new Outcome<T>(changetype<T>(<usize>0), error);
  return new Outcome<T>(<T>0, error);
}

/** The number that a call gave. */
export function outcomeOf(answer: i64): Outcome<i64> {
  return answer < 0 ? failure<i64>(answer) : new Outcome<i64>(answer);
}
