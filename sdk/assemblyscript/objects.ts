// Data objects: views on state, which functions of an app share without copies. Their bytes are
// laid out as docs/data-objects.md says, the same in every language.
//
// `Counter` needs `asc --enable threads`, for its atomic instructions; memory is not shared.
import * as calls from "./calls";
import { Errno } from "./calls";
import { Outcome, failure, outcomeOf } from "./outcome";
import { Access, View, map } from "./state";

const HEADER_BYTES: i32 = 64;

// The magics, as little-endian numbers.
const MATRIX: u64 = 0x3178746d4c4e5544; // DUNLmtx1
const SPARSE: u64 = 0x317273634c4e5544; // DUNLcsr1

/** The header that is there, which must have this magic. */
export function readHeader(key: string, magic: u64): Outcome<Uint8Array> {
  const there = new Uint8Array(HEADER_BYTES);
  const count = calls.stateRead(key, 0, there);
  if (count < 0) return failure<Uint8Array>(count);
  if (count < HEADER_BYTES || load<u64>(there.dataStart) != magic) {
    return failure<Uint8Array>(Errno.Invalid);
  }
  return new Outcome<Uint8Array>(there);
}

/** Creates the value with this header unless it is there; gives the header that is there. */
export function makeHeader(key: string, wanted: Uint8Array): Outcome<Uint8Array> {
  const error = calls.stateSwap(key, 0, wanted);
  if (error >= 0) return new Outcome<Uint8Array>(wanted);
  if (error != Errno.Conflict) return failure<Uint8Array>(error);
  return readHeader(key, load<u64>(wanted.dataStart));
}

/** One number, added to by one instruction that is atomic across sandboxes. */
export class Counter {
  private constructor(private at: usize) {}

  static open(key: string): Outcome<Counter> {
    const view = map<u64>(key, 0, 1, Access.Write);
    if (!view.ok) return failure<Counter>(view.error);
    return new Outcome<Counter>(new Counter(view.value.at));
  }

  /** Adds, wrapping around; gives what it was before. */
  add(count: u64): u64 {
    return atomic.add<u64>(this.at, count);
  }

  get value(): u64 {
    return atomic.load<u64>(this.at);
  }
}

/** Opens a vector of f64 or f32, as a view; `length` 0 is as long as it is. */
export function openVector<T>(key: string, length: i32, access: Access): Outcome<View<T>> {
  return map<T>(key, 0, length, access);
}

/** Rows of f64 or f32, one after the other. */
export class Matrix<T> {
  constructor(
    public readonly cells: View<T>,
    public readonly rows: i32,
    public readonly cols: i32,
  ) {}

  at(row: i32, col: i32): T {
    if (<u32>col >= <u32>this.cols) throw new RangeError("beyond the last column");
    return this.cells[row * this.cols + col];
  }

  put(row: i32, col: i32, number: T): void {
    if (<u32>col >= <u32>this.cols) throw new RangeError("beyond the last column");
    this.cells[row * this.cols + col] = number;
  }
}

function mapMatrix<T>(key: string, header: Uint8Array, access: Access): Outcome<Matrix<T>> {
  const at = header.dataStart;
  if (load<u32>(at, 8) != sizeof<T>()) return failure<Matrix<T>>(Errno.Invalid);
  const rows = load<u64>(at, 16);
  const cols = load<u64>(at, 24);
  if (rows == 0 || cols == 0) return failure<Matrix<T>>(Errno.Invalid);
  if (rows > <u64>i32.MAX_VALUE / cols) return failure<Matrix<T>>(Errno.TooLarge);
  const cells = map<T>(key, HEADER_BYTES, <i32>(rows * cols), access);
  if (!cells.ok) return failure<Matrix<T>>(cells.error);
  return new Outcome<Matrix<T>>(new Matrix<T>(cells.value, <i32>rows, <i32>cols));
}

/**
 * Opens a matrix to write, which is made of zeros unless it is there; `Errno.Conflict` if one of
 * another shape is there.
 */
export function makeMatrix<T>(key: string, rows: i32, cols: i32): Outcome<Matrix<T>> {
  const wanted = new Uint8Array(HEADER_BYTES);
  store<u64>(wanted.dataStart, MATRIX);
  store<u32>(wanted.dataStart, sizeof<T>(), 8);
  store<u64>(wanted.dataStart, rows, 16);
  store<u64>(wanted.dataStart, cols, 24);
  const there = makeHeader(key, wanted);
  if (!there.ok) return failure<Matrix<T>>(there.error);
  const at = there.value.dataStart;
  if (load<u64>(at, 16) != <u64>rows || load<u64>(at, 24) != <u64>cols) {
    return failure<Matrix<T>>(Errno.Conflict);
  }
  return mapMatrix<T>(key, there.value, Access.Write);
}

/** Opens a matrix that is there. */
export function openMatrix<T>(key: string, access: Access): Outcome<Matrix<T>> {
  const there = readHeader(key, MATRIX);
  if (!there.ok) return failure<Matrix<T>>(there.error);
  return mapMatrix<T>(key, there.value, access);
}

/** A sparse matrix by compressed rows: those of row r are starts[r] to starts[r + 1]. */
export class Sparse<T> {
  constructor(
    private key: string,
    public readonly rows: i32,
    public readonly cols: i32,
    public readonly starts: View<u64>,
    /** Rising within each row. */
    public readonly columns: View<u32>,
    public readonly values: View<T>,
  ) {}

  /** The number at a place; 0 where none is kept. */
  at(row: i32, col: u32): T {
    if (<u32>row >= <u32>this.rows) return <T>0;
    let low = <i32>this.starts[row];
    const end = <i32>this.starts[row + 1];
    let high = end;
    while (low < high) {
      const middle = low + ((high - low) >> 1);
      if (this.columns[middle] < col) low = middle + 1;
      else high = middle;
    }
    return low < end && this.columns[low] == col ? this.values[low] : <T>0;
  }

  /** Lets others open a matrix that has been filled in. */
  publish(): Outcome<i64> {
    const magic = new Uint8Array(8);
    store<u64>(magic.dataStart, SPARSE);
    return outcomeOf(calls.stateWrite(this.key, 0, magic));
  }
}

/** Where the parts begin, written into the header; 0, or an error. */
function layOut(header: usize): i64 {
  const rows = load<u64>(header, 16);
  const count = load<u64>(header, 32);
  if (rows > <u64>1 << 28 || count > <u64>1 << 28) return Errno.TooLarge;
  const columns = <u64>HEADER_BYTES + (rows + 1) * 8;
  store<u64>(header, HEADER_BYTES, 40);
  store<u64>(header, columns, 48);
  store<u64>(header, columns + (count * 4 + 7) / 8 * 8, 56);
  return 0;
}

function mapSparse<T>(key: string, header: Uint8Array, access: Access): Outcome<Sparse<T>> {
  const at = header.dataStart;
  if (load<u32>(at, 8) != sizeof<T>()) return failure<Sparse<T>>(Errno.Invalid);
  const error = layOut(at);
  if (error < 0) return failure<Sparse<T>>(error);
  const rows = <i32>load<u64>(at, 16);
  const count = <i32>load<u64>(at, 32);
  const starts = map<u64>(key, load<u64>(at, 40), rows + 1, access);
  if (!starts.ok) return failure<Sparse<T>>(starts.error);
  let columns = new Outcome<View<u32>>(new View<u32>(0, 0));
  let values = new Outcome<View<T>>(new View<T>(0, 0));
  if (count > 0) {
    columns = map<u32>(key, load<u64>(at, 48), count, access);
    if (!columns.ok) return failure<Sparse<T>>(columns.error);
    values = map<T>(key, load<u64>(at, 56), count, access);
    if (!values.ok) return failure<Sparse<T>>(values.error);
  }
  const cols = <i32>load<u64>(at, 24);
  const sparse = new Sparse<T>(key, rows, cols, starts.value, columns.value, values.value);
  return new Outcome<Sparse<T>>(sparse);
}

/**
 * Makes a sparse matrix with room for `count` numbers, to be filled in: starts, columns, values.
 * Nobody can open it before `publish`. What was under the key is gone.
 */
export function makeSparse<T>(key: string, rows: i32, cols: i32, count: i32): Outcome<Sparse<T>> {
  const header = new Uint8Array(HEADER_BYTES);
  const at = header.dataStart;
  store<u32>(at, sizeof<T>(), 8);
  store<u32>(at, 4, 12);
  store<u64>(at, rows, 16);
  store<u64>(at, cols, 24);
  store<u64>(at, count, 32);
  let error = layOut(at);
  if (error >= 0) error = calls.stateSet(key, header);
  if (error < 0) return failure<Sparse<T>>(error);
  return mapSparse<T>(key, header, Access.Write);
}

/** Opens a sparse matrix that is there and complete. */
export function openSparse<T>(key: string, access: Access): Outcome<Sparse<T>> {
  const there = readHeader(key, SPARSE);
  if (!there.ok) return failure<Sparse<T>>(there.error);
  return mapSparse<T>(key, there.value, access);
}

/** Records of one size, only ever added to. */
export class List {
  constructor(private key: string, private recordBytes: i32) {
    if (recordBytes <= 0) throw new RangeError("a record has at least one byte");
  }

  /** Adds a record; gives its place. One of another size is `Errno.Invalid`. */
  add(record: Uint8Array): Outcome<i64> {
    if (record.byteLength != this.recordBytes) return failure<i64>(Errno.Invalid);
    const offset = calls.stateAppend(this.key, record);
    return outcomeOf(offset < 0 ? offset : offset / this.recordBytes);
  }

  /** How many records there are. */
  length(): Outcome<i64> {
    const size = calls.stateSize(this.key);
    if (size == Errno.NotFound) return outcomeOf(0);
    return outcomeOf(size < 0 ? size : size / this.recordBytes);
  }

  /** Copies a record. */
  at(place: u64): Outcome<Uint8Array> {
    const record = new Uint8Array(this.recordBytes);
    if (place > <u64>1 << 40) return failure<Uint8Array>(Errno.NotFound);
    const count = calls.stateRead(this.key, place * this.recordBytes, record);
    if (count < 0) return failure<Uint8Array>(count);
    if (count < this.recordBytes) return failure<Uint8Array>(Errno.NotFound);
    return new Outcome<Uint8Array>(record);
  }

  /** The bytes of the records that are there now, as memory. */
  view(): Outcome<View<u8>> {
    const length = this.length();
    if (!length.ok) return failure<View<u8>>(length.error);
    if (length.value == 0) return new Outcome<View<u8>>(new View<u8>(0, 0));
    return map<u8>(this.key, 0, <i32>(length.value * this.recordBytes), Access.Read);
  }
}
