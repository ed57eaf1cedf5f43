//! Static executables: read, checked, and told apart from everything else.
//!
//! Nothing in a file is trusted: every number is checked against the file's length and the guest's
//! addresses before it is used. Only what can be loaded as it is passes: 64-bit, little-endian,
//! x86-64, without an interpreter, no page both writable and executable, no two segments in one
//! page.

use std::ops::Range;

use crate::layout::{PAGE, USER_END, USER_START};
use crate::space::Protection;

/// Most segments to load; linkers make about five.
const SEGMENTS_MAX: usize = 64;
/// Bytes of one program header.
const PHENT: usize = 56;
/// Bytes of one section header.
const SHENT: usize = 64;
/// Bytes of one symbol.
const SYMENT: usize = 24;
/// Bytes of one relocation with an addend.
const RELAENT: usize = 24;
/// Functions whose names are kept.
const SYMBOLS_MAX: usize = 200_000;
/// Bytes of a name that are kept.
const NAME_BYTES_MAX: usize = 256;

const ET_EXEC: u16 = 2;
const ET_DYN: u16 = 3;
const EM_X86_64: u16 = 62;
const PT_LOAD: u32 = 1;
const PT_DYNAMIC: u32 = 2;
const PT_INTERP: u32 = 3;
const PT_PHDR: u32 = 6;
const SHT_SYMTAB: u32 = 2;
const DT_RELA: u64 = 7;
const DT_RELASZ: u64 = 8;
const DT_RELRSZ: u64 = 35;
const DT_NEEDED: u64 = 1;
const R_X86_64_RELATIVE: u64 = 8;
const STT_FUNC: u8 = 2;

/// Why a file cannot be loaded.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ElfError {
    /// It does not begin as one.
    #[error("it is no ELF file")]
    NotElf,
    /// It is for another kind of machine or system.
    #[error("it is an ELF file, but {0}")]
    OtherMachine(&'static str),
    /// It is no program that runs on its own.
    #[error("it is no static executable: {0}")]
    NotStatic(&'static str),
    /// Its parts contradict each other.
    #[error("it is malformed: {0}")]
    Malformed(String),
    /// It asks for what guests do not get.
    #[error("it cannot be loaded: {0}")]
    Refused(String),
}

/// Part of a program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Its first address, before the program is moved.
    pub address: u64,
    /// Its bytes in the file; what its memory has more is zero.
    pub file: Range<usize>,
    /// Bytes in memory.
    pub bytes: u64,
    /// What the guest may do with it.
    pub protection: Protection,
}

impl Segment {
    /// Its whole pages.
    pub fn pages(&self) -> Range<u64> {
        let end = self.address + self.bytes;
        self.address - self.address % PAGE..end.next_multiple_of(PAGE)
    }
}

/// A checked file.
#[derive(Clone, Debug)]
pub struct Elf {
    /// Its first instruction, before it is moved.
    pub entry: u64,
    /// Whether it may be moved: a static-pie.
    pub movable: bool,
    /// What to load, by address.
    pub segments: Vec<Segment>,
    /// Address of its program headers in memory, if a segment holds them, before it is moved.
    pub headers_address: Option<u64>,
    /// How many program headers it has.
    pub header_count: u16,
    /// Words that hold an address of the program: where, and which.
    pub relocations: Vec<(u64, u64)>,
    /// Whether it has relocations in a form that only its own start-up code may apply.
    pub packed_relocations: bool,
}

/// The little-endian numbers of a file.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn bytes(&self, at: u64, count: usize) -> Result<&'a [u8], ElfError> {
        let span = usize::try_from(at).ok().and_then(|at| {
            let end = at.checked_add(count)?;
            self.0.get(at..end)
        });
        span.ok_or_else(|| malformed(format!("{count} bytes at {at} lie outside of it")))
    }

    fn number<const N: usize>(&self, at: u64) -> Result<u64, ElfError> {
        let mut word = [0; 8];
        word[..N].copy_from_slice(self.bytes(at, N)?);
        Ok(u64::from_le_bytes(word))
    }

    fn u16(&self, at: u64) -> Result<u16, ElfError> {
        self.number::<2>(at).map(|number| number as u16)
    }

    fn u32(&self, at: u64) -> Result<u32, ElfError> {
        self.number::<4>(at).map(|number| number as u32)
    }

    fn u64(&self, at: u64) -> Result<u64, ElfError> {
        self.number::<8>(at)
    }
}

fn malformed(reason: impl Into<String>) -> ElfError {
    ElfError::Malformed(reason.into())
}

/// A program header.
struct Header {
    kind: u32,
    flags: u32,
    offset: u64,
    address: u64,
    file_bytes: u64,
    bytes: u64,
}

/// Whether `file` begins as an ELF file does.
pub fn is_elf(file: &[u8]) -> bool {
    file.starts_with(b"\x7fELF")
}

impl Elf {
    /// Reads and checks `file`.
    pub fn parse(file: &[u8]) -> Result<Self, ElfError> {
        let reader = Reader(file);
        let movable = check_identity(&reader)?;
        let headers = headers(&reader)?;
        if headers.iter().any(|header| header.kind == PT_INTERP) {
            let reason = "it asks for a dynamic loader; link it with -static";
            return Err(ElfError::NotStatic(reason));
        }
        let mut segments = segments(&reader, &headers)?;
        segments.sort_by_key(|segment| segment.address);
        check_segments(&segments, movable)?;
        let mut elf = Self {
            entry: reader.u64(24)?,
            movable,
            headers_address: headers_address(&reader, &headers, &segments)?,
            header_count: headers.len() as u16,
            segments,
            relocations: Vec::new(),
            packed_relocations: false,
        };
        elf.check_entry()?;
        elf.read_dynamic(&reader, &headers)?;
        Ok(elf)
    }

    /// The addresses from the first page to the last, before it is moved.
    pub fn span(&self) -> Range<u64> {
        let start = self.segments.first().map_or(0, |first| first.pages().start);
        let end = self.segments.last().map_or(0, |last| last.pages().end);
        start..end
    }

    fn check_entry(&self) -> Result<(), ElfError> {
        let holds = |segment: &Segment| {
            segment.protection.execute
                && self.entry >= segment.address
                && self.entry - segment.address < segment.file.len() as u64
        };
        if self.segments.iter().any(holds) {
            return Ok(());
        }
        let reason = format!("its entry {:#x} is in no executable segment", self.entry);
        Err(malformed(reason))
    }

    fn read_dynamic(&mut self, reader: &Reader<'_>, headers: &[Header]) -> Result<(), ElfError> {
        let Some(dynamic) = headers.iter().find(|header| header.kind == PT_DYNAMIC) else {
            return Ok(());
        };
        let (mut at, mut bytes) = (0, 0);
        for index in 0..dynamic.file_bytes / 16 {
            let entry = dynamic.offset.saturating_add(index * 16);
            let value = reader.u64(entry.saturating_add(8))?;
            match reader.u64(entry)? {
                0 => break,
                DT_NEEDED => {
                    let reason = "it asks for shared libraries; link it with -static";
                    return Err(ElfError::NotStatic(reason));
                }
                DT_RELA => at = value,
                DT_RELASZ => bytes = value,
                DT_RELRSZ => self.packed_relocations = value > 0,
                _ => {}
            }
        }
        self.relocations = self.relocations(reader, at, bytes)?;
        Ok(())
    }

    fn relocations(
        &self,
        reader: &Reader<'_>,
        at: u64,
        bytes: u64,
    ) -> Result<Vec<(u64, u64)>, ElfError> {
        if bytes == 0 {
            return Ok(Vec::new());
        }
        let from = self.file_offset(at, bytes)?;
        let table = reader.bytes(from, bytes as usize)?;
        let (entries, _) = table.as_chunks::<RELAENT>();
        let mut found = Vec::with_capacity(entries.len());
        for entry in entries {
            let entry = Reader(entry);
            if entry.u64(8)? & 0xffff_ffff == R_X86_64_RELATIVE {
                found.push((entry.u64(0)?, entry.u64(16)?));
            }
        }
        Ok(found)
    }

    /// Where `bytes` bytes at `address` are in the file.
    fn file_offset(&self, address: u64, bytes: u64) -> Result<u64, ElfError> {
        let within = |segment: &&Segment| {
            let from = address.checked_sub(segment.address);
            let end = from.and_then(|from| from.checked_add(bytes));
            end.is_some_and(|end| end <= segment.file.len() as u64)
        };
        let segment = self.segments.iter().find(within);
        let segment = segment.ok_or_else(|| malformed("a table lies in no segment"))?;
        Ok(segment.file.start as u64 + (address - segment.address))
    }
}

fn check_identity(reader: &Reader<'_>) -> Result<bool, ElfError> {
    if !is_elf(reader.0) {
        return Err(ElfError::NotElf);
    }
    let identity = reader.bytes(0, 16)?;
    if identity[4] != 2 || identity[5] != 1 {
        return Err(ElfError::OtherMachine("not 64-bit and little-endian"));
    }
    if reader.u16(18)? != EM_X86_64 {
        return Err(ElfError::OtherMachine("not for x86-64"));
    }
    match reader.u16(16)? {
        ET_EXEC => Ok(false),
        ET_DYN => Ok(true),
        1 => Err(ElfError::NotStatic("it is an object file; link it")),
        _ => Err(ElfError::NotStatic("it is no program")),
    }
}

fn headers(reader: &Reader<'_>) -> Result<Vec<Header>, ElfError> {
    let (at, size, count) = (reader.u64(32)?, reader.u16(54)?, reader.u16(56)?);
    if usize::from(size) != PHENT || count == 0 {
        return Err(malformed("it has no program headers of the usual size"));
    }
    let header = |index: u16| {
        let at = at.checked_add(u64::from(index) * PHENT as u64);
        let at = at.ok_or_else(|| malformed("its program headers lie nowhere"))?;
        let header = Reader(reader.bytes(at, PHENT)?);
        Ok(Header {
            kind: header.u32(0)?,
            flags: header.u32(4)?,
            offset: header.u64(8)?,
            address: header.u64(16)?,
            file_bytes: header.u64(32)?,
            bytes: header.u64(40)?,
        })
    };
    (0..count).map(header).collect()
}

fn segments(reader: &Reader<'_>, headers: &[Header]) -> Result<Vec<Segment>, ElfError> {
    let loaded = headers
        .iter()
        .filter(|header| header.kind == PT_LOAD && header.bytes > 0);
    let segments: Vec<_> = loaded
        .map(|header| segment(reader, header))
        .collect::<Result<_, _>>()?;
    if segments.is_empty() || segments.len() > SEGMENTS_MAX {
        return Err(malformed(format!(
            "it has {} segments to load",
            segments.len()
        )));
    }
    Ok(segments)
}

fn segment(reader: &Reader<'_>, header: &Header) -> Result<Segment, ElfError> {
    if header.file_bytes > header.bytes {
        return Err(malformed(
            "a segment has more bytes in the file than in memory",
        ));
    }
    let file_bytes = usize::try_from(header.file_bytes).unwrap_or(usize::MAX);
    reader.bytes(header.offset, file_bytes)?;
    let end = header.address.checked_add(header.bytes);
    if end.is_none_or(|end| end > USER_END) {
        let at = header.address;
        return Err(ElfError::Refused(format!(
            "a segment of {} bytes at {at:#x} ends past {USER_END:#x}",
            header.bytes
        )));
    }
    let protection = Protection {
        read: true,
        write: header.flags & 2 != 0,
        execute: header.flags & 1 != 0,
    };
    if protection.write && protection.execute {
        let reason = "a segment is both writable and executable";
        return Err(ElfError::Refused(reason.into()));
    }
    let start = header.offset as usize;
    Ok(Segment {
        address: header.address,
        file: start..start + file_bytes,
        bytes: header.bytes,
        protection,
    })
}

fn check_segments(segments: &[Segment], movable: bool) -> Result<(), ElfError> {
    for pair in segments.windows(2) {
        if pair[0].pages().end > pair[1].pages().start {
            return Err(ElfError::Refused(format!(
                "the segments at {:#x} and {:#x} share a page; link it with -z separate-code",
                pair[0].address, pair[1].address
            )));
        }
    }
    let first = segments.first().map_or(0, |first| first.pages().start);
    if !movable && first < USER_START {
        return Err(ElfError::Refused(format!(
            "it begins at {first:#x}, and nothing below {USER_START:#x} is mapped"
        )));
    }
    Ok(())
}

fn headers_address(
    reader: &Reader<'_>,
    headers: &[Header],
    segments: &[Segment],
) -> Result<Option<u64>, ElfError> {
    if let Some(header) = headers.iter().find(|header| header.kind == PT_PHDR) {
        return Ok(Some(header.address));
    }
    let at = reader.u64(32)?;
    let holds = |segment: &&Segment| {
        let file = segment.file.start as u64..segment.file.end as u64;
        file.contains(&at)
    };
    let segment = segments.iter().find(holds);
    Ok(segment.map(|segment| segment.address + (at - segment.file.start as u64)))
}

/// The functions of a program, by address, so that a fault can be told by name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Symbols {
    /// Start, bytes and name, by start; before the program is moved.
    functions: Vec<(u64, u64, String)>,
}

impl Symbols {
    /// The functions of `file`; none where it is stripped, or its tables are not what they should.
    pub fn read(file: &[u8]) -> Self {
        let mut functions = read_symbols(&Reader(file)).unwrap_or_default();
        functions.sort();
        Self { functions }
    }

    /// As an entry of the cache: start and bytes in 8 bytes each, the name's length in 2, the name.
    pub fn encode(&self) -> Vec<u8> {
        let mut entry = Vec::new();
        for (start, bytes, name) in &self.functions {
            entry.extend(start.to_le_bytes());
            entry.extend(bytes.to_le_bytes());
            entry.extend((name.len() as u16).to_le_bytes());
            entry.extend(name.as_bytes());
        }
        entry
    }

    /// Reads it back, as far as it is right.
    pub fn decode(entry: &[u8]) -> Self {
        let reader = Reader(entry);
        let mut functions = Vec::new();
        let mut at = 0;
        let mut next = || {
            let (start, bytes) = (reader.u64(at).ok()?, reader.u64(at + 8).ok()?);
            let length = usize::from(reader.u16(at + 16).ok()?);
            let name = reader.bytes(at + 18, length).ok()?;
            at += 18 + length as u64;
            Some((start, bytes, String::from_utf8_lossy(name).into_owned()))
        };
        while let Some(function) = next() {
            functions.push(function);
        }
        Self { functions }
    }

    /// The function at `address`, and how far into it that is.
    pub fn function(&self, address: u64) -> Option<(&str, u64)> {
        let after = self
            .functions
            .partition_point(|(start, ..)| *start <= address);
        let (start, bytes, name) = self.functions.get(after.checked_sub(1)?)?;
        let into = address - start;
        // Assembly gives its functions no size.
        (into < (*bytes).max(1) || *bytes == 0).then_some((name.as_str(), into))
    }
}

fn read_symbols(reader: &Reader<'_>) -> Result<Vec<(u64, u64, String)>, ElfError> {
    let (at, size, count) = (reader.u64(40)?, reader.u16(58)?, reader.u16(60)?);
    if usize::from(size) != SHENT {
        return Ok(Vec::new());
    }
    let section = |index: u64| {
        let at = at.saturating_add(index.saturating_mul(SHENT as u64));
        reader.bytes(at, SHENT).map(Reader)
    };
    let mut functions = Vec::new();
    for index in 0..u64::from(count) {
        let table = section(index)?;
        if table.u32(4)? != SHT_SYMTAB {
            continue;
        }
        let names = section(table.u32(40)?.into())?;
        let names_bytes = usize::try_from(names.u64(32)?).unwrap_or(usize::MAX);
        let names = reader.bytes(names.u64(24)?, names_bytes)?;
        let bytes = usize::try_from(table.u64(32)?).unwrap_or(usize::MAX);
        let (entries, _) = reader.bytes(table.u64(24)?, bytes)?.as_chunks::<SYMENT>();
        let room = SYMBOLS_MAX.saturating_sub(functions.len());
        functions.extend(
            entries
                .iter()
                .filter_map(|entry| symbol(entry, names))
                .take(room),
        );
    }
    Ok(functions)
}

fn symbol(entry: &[u8; SYMENT], names: &[u8]) -> Option<(u64, u64, String)> {
    let reader = Reader(entry);
    if entry[4] & 0xf != STT_FUNC || reader.u16(6).ok()? == 0 {
        return None;
    }
    let name = names.get(reader.u32(0).ok()? as usize..)?;
    let end = name
        .iter()
        .take(NAME_BYTES_MAX)
        .position(|byte| *byte == 0)?;
    let name = String::from_utf8_lossy(&name[..end]).into_owned();
    Some((reader.u64(8).ok()?, reader.u64(16).ok()?, name))
}

#[cfg(test)]
#[path = "elf_tests.rs"]
pub(crate) mod tests;
