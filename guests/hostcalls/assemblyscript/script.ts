// The lines of a script: taking arguments from them and answering. See ../README.md.
import { Errno } from "../../../sdk/assemblyscript/calls";
import { outputText } from "../../../sdk/assemblyscript/dunlin";
import { Outcome } from "../../../sdk/assemblyscript/outcome";

const BUFFER_BYTES_MAX: u64 = 1 << 20;
const DIGITS = "0123456789abcdef";

export class Line {
  isMalformed: bool = false;
  private words: string[];
  private next: i32 = 1;

  constructor(text: string, private results: i64[]) {
    this.words = text.split(" ");
  }

  get name(): string {
    return this.words[0];
  }

  /** Whether the line had all the arguments that were taken from it and no more. */
  get isTaken(): bool {
    if (this.next != this.words.length) this.isMalformed = true;
    return !this.isMalformed;
  }

  private word(): string {
    if (this.next < this.words.length) return this.words[this.next++];
    this.isMalformed = true;
    return "";
  }

  private decimal(word: string): u64 {
    if (word.length == 0) this.isMalformed = true;
    let value: u64 = 0;
    for (let i = 0; i < word.length; i++) {
      const digit = word.charCodeAt(i) - 48;
      if (digit < 0 || digit > 9) this.isMalformed = true;
      value = value * 10 + <u64>digit;
    }
    return value;
  }

  private result(word: string): u64 {
    const number = this.decimal(word);
    if (number < <u64>this.results.length) return <u64>this.results[<i32>number];
    this.isMalformed = true;
    return 0;
  }

  number(): u64 {
    const word = this.word();
    if (!word.startsWith("$")) return this.decimal(word);
    const parts = word.substring(1).split("+");
    const value = this.result(parts[0]);
    return parts.length > 1 ? value + this.decimal(parts[1]) : value;
  }

  out(): Uint8Array {
    const length = this.number();
    if (length <= BUFFER_BYTES_MAX) return new Uint8Array(<i32>length);
    this.isMalformed = true;
    return new Uint8Array(0);
  }

  bytes(): Uint8Array {
    const word = this.word();
    if (word == "-") return new Uint8Array(0);
    if (word.startsWith("@")) return this.list(word.substring(1).split(","));
    if (word.length % 2 != 0) this.isMalformed = true;
    const bytes = new Uint8Array(word.length / 2);
    for (let i = 0; i < bytes.length; i++) {
      const high = DIGITS.indexOf(word.charAt(2 * i));
      const low = DIGITS.indexOf(word.charAt(2 * i + 1));
      if (high < 0 || low < 0) this.isMalformed = true;
      bytes[i] = <u8>(high * 16 + low);
    }
    return bytes;
  }

  private list(numbers: string[]): Uint8Array {
    const bytes = new Uint8Array(4 * numbers.length);
    for (let i = 0; i < numbers.length; i++) {
      store<u32>(bytes.dataStart + 4 * <usize>i, <u32>this.result(numbers[i]));
    }
    return bytes;
  }

  text(): string {
    const bytes = this.bytes();
    return String.UTF8.decodeUnsafe(bytes.dataStart, bytes.byteLength);
  }

  answer(result: i64): void {
    this.results.push(result);
    outputText((result < 0 ? "err " : "ok ") + result.toString() + "\n");
  }

  answerWith(result: i64, bytes: Uint8Array): void {
    this.results.push(result);
    const parts = new Array<string>();
    for (let i = 0; i < bytes.length; i++) {
      parts.push(DIGITS.charAt(bytes[i] >> 4) + DIGITS.charAt(bytes[i] & 15));
    }
    const hex = bytes.length == 0 ? "-" : parts.join("");
    outputText((result < 0 ? "err " : "ok ") + result.toString() + " " + hex + "\n");
  }

  /** Answers with what the call wrote to its buffer. */
  answerFilled(result: i64, out: Uint8Array): void {
    if (result < 0) this.answer(result);
    else this.answerWith(result, out.subarray(0, <i32>result));
  }

  answerOutcome(outcome: Outcome<i64>): void {
    this.answer(outcome.ok ? outcome.value : outcome.error);
  }

  answerBytes(outcome: Outcome<Uint8Array>): void {
    if (outcome.ok) this.answerWith(outcome.value.byteLength, outcome.value);
    else this.answer(outcome.error);
  }

  refuse(): void {
    this.results.push(Errno.Invalid);
    outputText("bad\n");
  }
}
