//! Scripts: likely and unlikely calls in any order, some of which use what earlier ones gave.

use std::collections::VecDeque;

use rand::RngExt as _;
use rand::rngs::StdRng;
use sandbox::host::{HostCall, Param, Type};

use super::interpreter::{
    ARGUMENTS_MAX, Deed, OUT_AT, OUT_BYTES, RECORD_BYTES, RESULT_SLOTS, RESULTS_AT, SCRIPT_AT,
    WORDS, calls,
};

/// Calls of one script.
pub const CALLS: u64 = 64;
/// Keys, functions, and what is neither.
const NAMES: [&str; 6] = ["key", "other", "self", "k\u{7f}", "", "a/b/c"];

/// A number, and the slot of a result that is added to it; slot 0 is zero.
#[derive(Clone, Copy)]
struct Argument {
    value: u64,
    slot: u64,
}

/// What an earlier call gave, if it succeeded.
#[derive(Clone, Copy)]
enum Gave {
    /// A mapping of so many bytes.
    Mapping(u64),
    /// A call's handle.
    Call,
    Other,
}

/// Writes one script.
pub struct Writer<'a> {
    random: &'a mut StdRng,
    /// The results that are still there, the latest last, with their slots.
    given: VecDeque<(u64, Gave)>,
}

fn plain(value: u64) -> Argument {
    Argument { value, slot: 0 }
}

impl<'a> Writer<'a> {
    pub fn new(random: &'a mut StdRng) -> Self {
        let given = VecDeque::new();
        Self { random, given }
    }

    /// The bytes of a script.
    pub fn script(mut self) -> Vec<u8> {
        let all: Vec<&HostCall> = calls().collect();
        let mut script = Vec::new();
        for at in 0..CALLS {
            let (number, arguments, gave) = match self.one_of(5) {
                0 => self.deed(),
                1 => self.call(&all, "state_map"),
                _ => {
                    let call = all[self.random.random_range(0..all.len())];
                    self.call(&all, call.name)
                }
            };
            script.extend(number.to_le_bytes());
            for at in 0..ARGUMENTS_MAX {
                let Argument { value, slot } = arguments.get(at).copied().unwrap_or(plain(0));
                script.extend(value.to_le_bytes());
                script.extend((slot * 8).to_le_bytes());
            }
            self.given.push_back((1 + at % (RESULT_SLOTS - 1), gave));
            if self.given.len() as u64 == RESULT_SLOTS {
                self.given.pop_front();
            }
        }
        script
    }

    fn one_of(&mut self, count: u32) -> u32 {
        self.random.random_range(0..count)
    }

    /// A number that something is likely to go wrong with.
    fn number(&mut self) -> u64 {
        const EDGES: [u64; 18] = [
            0,
            1,
            2,
            3,
            7,
            4095,
            4096,
            65_535,
            65_536,
            65_537,
            262_143,
            1 << 22,
            0x7fff_ffff,
            0x8000_0000,
            0xffff_ffff,
            1 << 40,
            i64::MAX as u64,
            u64::MAX,
        ];
        match self.one_of(4) {
            0 => self.random.random(),
            1 => self.random.random_range(0..64),
            _ => EDGES[self.random.random_range(0..EDGES.len())],
        }
    }

    /// The slot of an earlier result that `wanted` picks.
    fn earlier<T>(&mut self, wanted: impl Fn(Gave) -> Option<T>) -> Option<(u64, T)> {
        let found: Vec<(u64, T)> = self
            .given
            .iter()
            .filter_map(|(slot, gave)| Some((*slot, wanted(*gave)?)))
            .collect();
        let count = found.len();
        (count > 0).then(|| self.random.random_range(0..count))?;
        let at = self.random.random_range(0..count);
        found.into_iter().nth(at)
    }

    /// An address in a mapping, or about its ends, and how much is left of it.
    fn mapped(&mut self) -> Option<(Argument, u64)> {
        let mapping = |gave| match gave {
            Gave::Mapping(bytes) => Some(bytes),
            _ => None,
        };
        let (slot, bytes) = self.earlier(mapping)?;
        let value = match self.one_of(48) {
            0 => self.number(),
            1 => bytes.wrapping_sub(4),
            2 => 8_u64.wrapping_neg(),
            _ => self.random.random_range(0..bytes.clamp(1, 1 << 20)),
        };
        Some((Argument { value, slot }, bytes.saturating_sub(value)))
    }

    fn deed(&mut self) -> (u64, Vec<Argument>, Gave) {
        let deed = Deed::ALL[self.random.random_range(0..Deed::ALL.len())];
        let arguments = match deed {
            Deed::Grow => vec![plain(self.random.random_range(0..80))],
            Deed::Peek | Deed::Poke | Deed::Fill | Deed::Copy => {
                let (to, room) = self.mapped().unwrap_or((plain(OUT_AT), OUT_BYTES));
                let from = match (deed, self.mapped()) {
                    (Deed::Copy, Some((from, _))) => from,
                    (Deed::Copy, None) => plain(0),
                    _ => plain(self.number()),
                };
                let length = self.random.random_range(0..=room.clamp(0, 1 << 17));
                vec![to, from, plain(length)]
            }
        };
        (deed.number(), arguments, Gave::Other)
    }

    /// A call of this name; where a script is, it is one.
    fn call(&mut self, all: &[&HostCall], name: &str) -> (u64, Vec<Argument>, Gave) {
        let number = all.iter().position(|call| call.name == name).unwrap_or(0);
        let call = all[number];
        let mut arguments = Vec::new();
        for param in call.params {
            self.argument(call, param, &mut arguments);
        }
        let gave = match call.name {
            // The key is two arguments; then come the offset and the length.
            "state_map" => Gave::Mapping(arguments.get(3).map_or(0, |length| length.value)),
            "chain_call" | "chain_spawn" => Gave::Call,
            _ => Gave::Other,
        };
        (number as u64, arguments, gave)
    }

    fn argument(&mut self, call: &HostCall, param: &Param, arguments: &mut Vec<Argument>) {
        let handle = |gave| matches!(gave, Gave::Call).then_some(());
        match (param.ty, param.name) {
            (Type::Str, _) => arguments.extend(self.name()),
            (Type::Bytes, "handles") => {
                let slot = self.earlier(handle).map_or(1, |(slot, ())| slot);
                let lengths = [4, 4, 8, 16, 64, 3];
                let length = lengths[self.random.random_range(0..lengths.len())];
                arguments.extend([plain(RESULTS_AT + 8 * slot), plain(length)]);
            }
            (Type::Bytes, "input") if self.one_of(3) == 0 => {
                // Some of this very script, as far as there is any.
                let from = SCRIPT_AT + RECORD_BYTES * self.random.random_range(0..CALLS);
                let length = RECORD_BYTES * self.random.random_range(0..8);
                arguments.extend([plain(from), plain(length)]);
            }
            (Type::Bytes, _) => match self.one_of(2) {
                0 => arguments.extend(self.name()),
                _ => arguments.extend(self.room()),
            },
            (Type::Out, _) => arguments.extend(self.room()),
            (Type::U32, "handle") if self.one_of(4) > 0 => {
                let slot = self.earlier(handle).map_or(0, |(slot, ())| slot);
                arguments.push(Argument { value: 0, slot });
            }
            // A wait of ages is no fault, but it takes ages.
            (Type::U64, name) if name.ends_with("_ms") => arguments.push(plain(self.number() % 3)),
            (Type::U32, "mode" | "flags") if self.one_of(6) > 0 => {
                arguments.push(plain(u64::from(self.one_of(2))));
            }
            (Type::U64, "offset" | "len") if call.name == "state_map" && self.one_of(4) > 0 => {
                const SPANS: [u64; 8] = [0, 1, 8, 4096, 65_535, 65_536, 65_537, 1 << 20];
                arguments.push(plain(SPANS[self.random.random_range(0..SPANS.len())]));
            }
            (Type::U32 | Type::U64, _) => arguments.push(plain(self.number())),
        }
    }

    /// Where a name is, and how long it is; or anything.
    fn name(&mut self) -> [Argument; 2] {
        let name = NAMES[self.random.random_range(0..NAMES.len())];
        match WORDS.find(name) {
            Some(at) if self.one_of(48) > 0 => [plain(at as u64), plain(name.len() as u64)],
            _ => [plain(self.number()), plain(self.number())],
        }
    }

    /// Room for bytes: of its own, in a mapping, over names and results, or anywhere.
    fn room(&mut self) -> [Argument; 2] {
        match (self.one_of(48), self.mapped()) {
            (0, _) => [plain(self.number()), plain(self.number())],
            (1..=8, _) => [
                plain(self.random.random_range(0..RESULTS_AT + 128)),
                plain(self.random.random_range(0..256)),
            ],
            (9..=30, Some((at, room))) => {
                let length = self.random.random_range(0..=room.min(1 << 17));
                [at, plain(length)]
            }
            _ => [plain(OUT_AT), plain(self.random.random_range(0..OUT_BYTES))],
        }
    }
}
