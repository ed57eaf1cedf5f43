//! The bytes of records: JSON, so that operators can read them, and neighbours one release apart
//! add fields that the other one skips.

use model::NodeId;
use scheduler::{Load, Resources, Standing, Tag};
use serde::{Deserialize, Serialize};

/// Versions that a report lists of each kind, so that it stays small: it is written often.
pub(crate) const LISTED_MAX: usize = 256;

/// Who a node is, for as long as one tenure lasts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Where other nodes reach it.
    pub address: String,
    /// The release that it runs.
    pub software: String,
}

/// Who owns a resource.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owner {
    /// The node.
    pub node: NodeId,
    /// The token of its tenure.
    pub token: u64,
}

/// What a node says of itself, again and again.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Whether it takes new calls.
    pub standing: Standing,
    /// What it has and does.
    pub load: Load,
}

#[derive(Debug, Serialize, Deserialize)]
struct ReportWire {
    standing: StandingWire,
    capacity: ResourcesWire,
    used: ResourcesWire,
    waiting: u32,
    waiting_max: u32,
    #[serde(default)]
    warm: Vec<(u64, u32)>,
    #[serde(default)]
    images: Vec<u64>,
}

#[derive(Debug, Serialize, Deserialize)]
struct ResourcesWire {
    places: u32,
    memory_bytes: u64,
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum StandingWire {
    Serving,
    Cordoned,
    Draining,
    Lost,
}

pub(crate) fn encode<T: Serialize>(record: &T) -> Vec<u8> {
    // Records are structs of numbers and strings, which serde_json cannot fail on.
    serde_json::to_vec(record).unwrap_or_default()
}

pub(crate) fn decode<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, String> {
    serde_json::from_slice(bytes).map_err(|error| error.to_string())
}

impl Report {
    /// The report's bytes: of warm sandboxes and images it lists as many as it may.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let Load {
            capacity,
            used,
            waiting,
            waiting_max,
            warm,
            images,
        } = &self.load;
        let mut warm: Vec<(u64, u32)> = warm.iter().map(|(tag, count)| (tag.0, *count)).collect();
        // Where not all fit, those of which there are most help most calls.
        warm.sort_by_key(|(tag, count)| (std::cmp::Reverse(*count), *tag));
        warm.truncate(LISTED_MAX);
        encode(&ReportWire {
            standing: self.standing.into(),
            capacity: (*capacity).into(),
            used: (*used).into(),
            waiting: *waiting,
            waiting_max: *waiting_max,
            warm,
            images: images.iter().map(|tag| tag.0).take(LISTED_MAX).collect(),
        })
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, String> {
        let wire: ReportWire = decode(bytes)?;
        let warm = wire.warm.into_iter().take(LISTED_MAX);
        let images = wire.images.into_iter().take(LISTED_MAX);
        Ok(Self {
            standing: wire.standing.into(),
            load: Load {
                capacity: wire.capacity.into(),
                used: wire.used.into(),
                waiting: wire.waiting,
                waiting_max: wire.waiting_max,
                warm: warm.map(|(tag, count)| (Tag(tag), count)).collect(),
                images: images.map(Tag).collect(),
            },
        })
    }
}

/// The bytes of what operators want of a node.
pub(crate) fn encode_wish(standing: Standing) -> Vec<u8> {
    encode(&StandingWire::from(standing))
}

pub(crate) fn decode_wish(bytes: &[u8]) -> Result<Standing, String> {
    decode::<StandingWire>(bytes).map(Standing::from)
}

impl From<Resources> for ResourcesWire {
    fn from(of: Resources) -> Self {
        Self {
            places: of.places,
            memory_bytes: of.memory_bytes,
        }
    }
}

impl From<ResourcesWire> for Resources {
    fn from(of: ResourcesWire) -> Self {
        Self {
            places: of.places,
            memory_bytes: of.memory_bytes,
        }
    }
}

impl From<Standing> for StandingWire {
    fn from(standing: Standing) -> Self {
        match standing {
            Standing::Serving => StandingWire::Serving,
            Standing::Cordoned => StandingWire::Cordoned,
            Standing::Draining => StandingWire::Draining,
            Standing::Lost => StandingWire::Lost,
        }
    }
}

impl From<StandingWire> for Standing {
    fn from(standing: StandingWire) -> Self {
        match standing {
            StandingWire::Serving => Standing::Serving,
            StandingWire::Cordoned => Standing::Cordoned,
            StandingWire::Draining => Standing::Draining,
            StandingWire::Lost => Standing::Lost,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOLDEN: &str = r#"{"standing":"draining","capacity":{"places":8,"memory_bytes":64},"used":{"places":1,"memory_bytes":2},"waiting":3,"waiting_max":4,"warm":[[18446744073709551615,2]],"images":[7]}"#;

    fn report() -> Report {
        let amount = |places, memory_bytes| Resources {
            places,
            memory_bytes,
        };
        Report {
            standing: Standing::Draining,
            load: Load {
                capacity: amount(8, 64),
                used: amount(1, 2),
                waiting: 3,
                waiting_max: 4,
                warm: vec![(Tag(u64::MAX), 2)],
                images: vec![Tag(7)],
            },
        }
    }

    #[test]
    fn the_bytes_of_records_are_pinned() {
        assert_eq!(String::from_utf8(report().encode()).unwrap(), GOLDEN);
        assert_eq!(Report::decode(GOLDEN.as_bytes()), Ok(report()));
        let owner = Owner {
            node: "n1".parse().unwrap(),
            token: 7,
        };
        assert_eq!(encode(&owner), br#"{"node":"n1","token":7}"#);
        assert_eq!(encode_wish(Standing::Cordoned), br#""cordoned""#);
        assert_eq!(decode_wish(br#""cordoned""#), Ok(Standing::Cordoned));
    }

    #[test]
    fn fields_of_a_later_release_are_skipped() {
        let later = GOLDEN.replacen('{', r#"{"new":[1],"#, 1);
        assert_eq!(Report::decode(later.as_bytes()), Ok(report()));
        assert!(Report::decode(b"{}").is_err());
    }

    #[test]
    fn a_report_lists_the_most_useful_and_stays_small() {
        let mut report = report();
        report.load.warm = (0..1000).map(|n| (Tag(n), n as u32)).collect();
        report.load.images = (0..1000).map(Tag).collect();
        let load = Report::decode(&report.encode()).unwrap().load;
        assert_eq!(
            (load.warm.len(), load.images.len()),
            (LISTED_MAX, LISTED_MAX)
        );
        assert_eq!(load.warm[0], (Tag(999), 999));
    }
}
