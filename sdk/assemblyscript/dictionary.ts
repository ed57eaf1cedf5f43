// A dictionary: a hash table of keys and values of bounded size, laid out as docs/data-objects.md
// says. Take its lock (`state.lock` of the same key) around everything: shared to look into it,
// exclusive to change it.
import { Errno } from "./calls";
import { makeHeader, readHeader } from "./objects";
import { Outcome, failure } from "./outcome";
import { Access, map } from "./state";

const HEADER_BYTES: u64 = 64;
const MAGIC: u64 = 0x316369644c4e5544; // DUNLdic1
const FIRST_SLOTS: u64 = 64;

// Where the numbers of the header lie.
const SLOTS = 16;
const USED = 24;
const FIRST = 32;

/** FNV-1a of 64 bits, folded once. */
function hash(name: usize, length: u32): u64 {
  let hash: u64 = 0xcbf29ce484222325;
  for (let i: u32 = 0; i < length; i++) hash = (hash ^ load<u8>(name + i)) * 0x100000001b3;
  return hash ^ (hash >> 32);
}

export class Dictionary {
  private at: usize = 0;
  private mapped: u64 = 0;
  private keyBytesMax: u32 = 0;
  private valueBytesMax: u32 = 0;
  private valueAt: u64 = 0;
  private slotBytes: u64 = 0;
  private first: u64 = 0;

  private constructor(private key: string, private access: Access) {}

  /**
   * Opens a dictionary to write, which is made empty unless it is there; `Errno.Conflict` if one
   * with other sizes is there.
   */
  static make(key: string, keyBytesMax: u32, valueBytesMax: u32): Outcome<Dictionary> {
    const wanted = new Uint8Array(<i32>HEADER_BYTES);
    store<u64>(wanted.dataStart, MAGIC);
    store<u32>(wanted.dataStart, keyBytesMax, 8);
    store<u32>(wanted.dataStart, valueBytesMax, 12);
    store<u64>(wanted.dataStart, FIRST_SLOTS, SLOTS);
    store<u64>(wanted.dataStart, FIRST_SLOTS, FIRST);
    const there = makeHeader(key, wanted);
    if (!there.ok) return failure<Dictionary>(there.error);
    const at = there.value.dataStart;
    if (load<u32>(at, 8) != keyBytesMax || load<u32>(at, 12) != valueBytesMax) {
      return failure<Dictionary>(Errno.Conflict);
    }
    return Dictionary.of(key, there.value, Access.Write);
  }

  /** Opens a dictionary that is there. */
  static open(key: string, access: Access): Outcome<Dictionary> {
    const there = readHeader(key, MAGIC);
    if (!there.ok) return failure<Dictionary>(there.error);
    return Dictionary.of(key, there.value, access);
  }

  private static of(key: string, header: Uint8Array, access: Access): Outcome<Dictionary> {
    const dictionary = new Dictionary(key, access);
    const at = header.dataStart;
    dictionary.keyBytesMax = load<u32>(at, 8);
    dictionary.valueBytesMax = load<u32>(at, 12);
    dictionary.first = load<u64>(at, FIRST);
    dictionary.valueAt = 8 + (<u64>dictionary.keyBytesMax + 7) / 8 * 8;
    dictionary.slotBytes = dictionary.valueAt + (<u64>dictionary.valueBytesMax + 7) / 8 * 8;
    const error = dictionary.mapBytes(HEADER_BYTES);
    if (error < 0) return failure<Dictionary>(error);
    return new Outcome<Dictionary>(dictionary);
  }

  /** How many names there are. */
  get length(): u64 {
    return load<u64>(this.at, USED);
  }

  /** A copy of the value of a name. */
  get(name: Uint8Array): Outcome<Uint8Array> {
    const error = this.follow();
    if (error < 0) return failure<Uint8Array>(error);
    if (<u32>name.byteLength > this.keyBytesMax) return failure<Uint8Array>(Errno.NotFound);
    const slot = this.find(load<u64>(this.at, SLOTS), name.dataStart, name.byteLength);
    if (slot == 0 || load<u32>(slot) == 0) return failure<Uint8Array>(Errno.NotFound);
    const length = load<u32>(slot, 4);
    if (length > this.valueBytesMax) return failure<Uint8Array>(Errno.Invalid);
    const value = new Uint8Array(length);
    memory.copy(value.dataStart, slot + <usize>this.valueAt, length);
    return new Outcome<Uint8Array>(value);
  }

  /** Sets the value of a name; gives 0 or an error. */
  put(name: Uint8Array, value: Uint8Array): i64 {
    if (this.access != Access.Write) return Errno.Denied;
    let error = this.follow();
    if (error < 0) return error;
    const nameLength = <u32>name.byteLength;
    const valueLength = <u32>value.byteLength;
    if (nameLength > this.keyBytesMax || valueLength > this.valueBytesMax) return Errno.TooLarge;
    const slots = load<u64>(this.at, SLOTS);
    let slot = this.find(slots, name.dataStart, nameLength);
    const isNew = slot == 0 || load<u32>(slot) == 0;
    if (isNew && (this.length + 1) * 4 > slots * 3) {
      error = this.grow();
      if (error < 0) return error;
      slot = this.find(slots * 2, name.dataStart, nameLength);
    }
    if (slot == 0) return Errno.Invalid;
    memory.copy(slot + <usize>this.valueAt, value.dataStart, valueLength);
    store<u32>(slot, valueLength, 4);
    if (!isNew) return 0;
    memory.copy(slot + 8, name.dataStart, nameLength);
    store<u32>(slot, nameLength + 1);
    store<u64>(this.at, this.length + 1, USED);
    return 0;
  }

  /** Takes a name out; gives 0, or `Errno.NotFound` if it is not there. */
  remove(name: Uint8Array): i64 {
    if (this.access != Access.Write) return Errno.Denied;
    const error = this.follow();
    if (error < 0) return error;
    if (<u32>name.byteLength > this.keyBytesMax) return Errno.NotFound;
    const slots = load<u64>(this.at, SLOTS);
    const mask = slots - 1;
    const found = this.find(slots, name.dataStart, name.byteLength);
    if (found == 0 || load<u32>(found) == 0) return Errno.NotFound;
    let hole = <u64>(found - this.slot(slots, 0)) / this.slotBytes;
    let next = hole;
    for (let step: u64 = 1; step < slots; step++) {
      next = (next + 1) & mask;
      const from = this.slot(slots, next);
      const tag = load<u32>(from);
      if (tag == 0) break;
      if (tag - 1 > this.keyBytesMax) return Errno.Invalid;
      // A slot moves into the hole unless its own place lies behind the hole.
      const own = hash(from + 8, tag - 1) & mask;
      if (((next - own) & mask) < ((next - hole) & mask)) continue;
      memory.copy(this.slot(slots, hole), from, <usize>this.slotBytes);
      hole = next;
    }
    memory.fill(this.slot(slots, hole), 0, <usize>this.slotBytes);
    store<u64>(this.at, this.length - 1, USED);
    return 0;
  }

  private bytesOf(slots: u64): u64 {
    return HEADER_BYTES + (slots - this.first + slots) * this.slotBytes;
  }

  /** The slot of a table of so many: each table lies after the one that it replaced. */
  private slot(slots: u64, place: u64): usize {
    return this.at + <usize>(HEADER_BYTES + (slots - this.first + place) * this.slotBytes);
  }

  private mapBytes(bytes: u64): i64 {
    if (bytes <= this.mapped) return 0;
    if (bytes > <u64>i32.MAX_VALUE) return Errno.TooLarge;
    const view = map<u8>(this.key, 0, <i32>bytes, this.access);
    if (!view.ok) return view.error;
    this.at = view.value.at;
    this.mapped = bytes;
    return 0;
  }

  /** Maps the table that counts now; another function may have made it larger. */
  private follow(): i64 {
    const slots = load<u64>(this.at, SLOTS);
    if (this.first == 0 || slots < this.first || (slots & (slots - 1)) != 0) return Errno.Invalid;
    if (slots > <u64>1 << 32) return Errno.TooLarge;
    return this.mapBytes(this.bytesOf(slots));
  }

  /** The slot of a name, or the empty one where it would go; 0 in a full table. */
  private find(slots: u64, name: usize, length: u32): usize {
    const mask = slots - 1;
    let place = hash(name, length) & mask;
    for (let step: u64 = 0; step < slots; step++, place = (place + 1) & mask) {
      const slot = this.slot(slots, place);
      const tag = load<u32>(slot);
      if (tag == 0) return slot;
      if (tag == length + 1 && memory.compare(slot + 8, name, length) == 0) return slot;
    }
    return 0;
  }

  /**
   * Doubles the table: the new one is filled behind the old one, and then made the one that
   * counts, so that a function that dies meanwhile leaves the old one.
   */
  private grow(): i64 {
    const slots = load<u64>(this.at, SLOTS);
    const larger = slots * 2;
    const error = this.mapBytes(this.bytesOf(larger));
    if (error < 0) return error;
    memory.fill(this.slot(larger, 0), 0, <usize>(larger * this.slotBytes));
    for (let place: u64 = 0; place < slots; place++) {
      const from = this.slot(slots, place);
      const tag = load<u32>(from);
      if (tag == 0) continue;
      if (tag - 1 > this.keyBytesMax) return Errno.Invalid;
      const to = this.find(larger, from + 8, tag - 1);
      memory.copy(to, from, <usize>this.slotBytes);
    }
    store<u64>(this.at, larger, SLOTS);
    return 0;
  }
}
