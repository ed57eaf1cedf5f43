//! All nodes and what they own, out of the store's events. Pure: it is told, and asks nobody.

use std::collections::BTreeMap;

use model::NodeId;
use scheduler::{Standing, View};
use storage::{Change, Entry, Event};

use crate::keys::Key;
use crate::record::{self, Owner, Record, Report};
use crate::rendezvous;
use crate::{MembershipError, Resource};

/// A node that is alive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Names its tenure among all.
    pub token: u64,
    /// Who it is.
    pub record: Record,
}

/// What is known of the cluster.
#[derive(Clone, Debug, Default)]
pub struct Roster {
    peers: BTreeMap<NodeId, Peer>,
    reports: BTreeMap<NodeId, Report>,
    wishes: BTreeMap<NodeId, Standing>,
    owners: BTreeMap<Resource, (Owner, u64)>,
    view: View,
    turnover: u64,
}

impl Roster {
    /// A roster of what a range of the store holds.
    pub(crate) fn of(entries: &[Entry]) -> (Self, Vec<MembershipError>) {
        let mut roster = Self::default();
        let mut faults = Vec::new();
        for entry in entries {
            let put = Event {
                key: entry.key.clone(),
                change: Change::Put(entry.value.clone()),
                revision: entry.revision,
            };
            faults.extend(roster.apply(&put).err());
        }
        (roster, faults)
    }

    /// Takes a change. A record that cannot be read leaves its node with what was known of it.
    pub fn apply(&mut self, event: &Event) -> Result<(), MembershipError> {
        // A later release may have keys that this one does not know.
        let Some(key) = Key::read(&event.key) else {
            return Ok(());
        };
        let revision = event.revision.0;
        let node = match key {
            Key::Own(resource) => {
                let owner = read(event, |bytes| record::decode::<Owner>(bytes))?;
                set(
                    &mut self.owners,
                    resource,
                    owner.map(|owner| (owner, revision)),
                );
                return Ok(());
            }
            Key::Node(node) => {
                let record = read(event, |bytes| record::decode::<Record>(bytes))?;
                let token = revision;
                let peer = record.map(|record| Peer { token, record });
                self.turnover += 1;
                set(&mut self.peers, node.clone(), peer);
                node
            }
            Key::Report(node) => {
                set(
                    &mut self.reports,
                    node.clone(),
                    read(event, Report::decode)?,
                );
                node
            }
            Key::Wish(node) => {
                set(
                    &mut self.wishes,
                    node.clone(),
                    read(event, record::decode_wish)?,
                );
                node
            }
        };
        self.show(&node);
        Ok(())
    }

    /// Brings the scheduler's view up to date with what is known of a node: it is there once it
    /// has said what it has.
    fn show(&mut self, node: &NodeId) {
        match (self.peers.contains_key(node), self.reports.get(node)) {
            (true, Some(report)) => self.view.put(node, self.standing(node), &report.load),
            _ => drop(self.view.remove(node)),
        }
    }

    /// The nodes that are alive.
    pub fn peers(&self) -> &BTreeMap<NodeId, Peer> {
        &self.peers
    }

    /// Grows with each node that comes or goes, and when all was read anew; not with reports.
    pub fn turnover(&self) -> u64 {
        self.turnover
    }

    /// This roster in the place of an earlier one, which may have missed some that came or went.
    pub(crate) fn instead_of(mut self, earlier: &Self) -> Self {
        self.turnover += earlier.turnover + 1;
        self
    }

    /// What a node is there for: the stricter of what it says itself and what operators want.
    pub fn standing(&self, node: &NodeId) -> Standing {
        if !self.peers.contains_key(node) {
            return Standing::Lost;
        }
        let says = self.reports.get(node).map(|report| report.standing);
        let wish = self.wishes.get(node).copied();
        says.max(wish).unwrap_or_default()
    }

    /// What a node last said of itself.
    pub fn report(&self, node: &NodeId) -> Option<&Report> {
        self.reports.get(node)
    }

    /// What operators want of a node, if anything.
    pub fn wish(&self, node: &NodeId) -> Option<Standing> {
        self.wishes.get(node).copied()
    }

    /// Who owns a resource, as far as is known here, and the claim's token.
    pub fn owner(&self, resource: &Resource) -> Option<(&Owner, u64)> {
        self.owners
            .get(resource)
            .map(|(owner, token)| (owner, *token))
    }

    /// Which node should own what is named so: the one that rendezvous hashing says, of those that
    /// are alive and not about to stop.
    pub fn preferred(&self, name: &[u8]) -> Option<&NodeId> {
        let stays = |node: &&NodeId| self.standing(node) < Standing::Draining;
        rendezvous::owner(name, self.peers.keys().filter(stays))
    }

    /// What the scheduler decides by.
    pub fn view(&self) -> &View {
        &self.view
    }

    /// The same, to count in it what was sent off; see [`View::assume`].
    pub fn view_mut(&mut self) -> &mut View {
        &mut self.view
    }
}

/// What an event puts; none when it deletes.
fn read<T>(
    event: &Event,
    decode: impl FnOnce(&[u8]) -> Result<T, String>,
) -> Result<Option<T>, MembershipError> {
    let Change::Put(value) = &event.change else {
        return Ok(None);
    };
    let value = decode(value).map_err(|why| MembershipError::Unreadable {
        key: event.key.escape_ascii().to_string(),
        why,
    })?;
    Ok(Some(value))
}

fn set<K: Ord, V>(map: &mut BTreeMap<K, V>, key: K, value: Option<V>) {
    match value {
        Some(value) => drop(map.insert(key, value)),
        None => drop(map.remove(&key)),
    }
}

#[cfg(test)]
mod tests {
    use scheduler::Load;
    use storage::Revision;

    use super::*;
    use crate::keys;

    fn put(key: String, value: Vec<u8>, revision: u64) -> Event {
        Event {
            key: key.into(),
            change: Change::Put(value.into()),
            revision: Revision(revision),
        }
    }

    fn delete(key: String) -> Event {
        Event {
            key: key.into(),
            change: Change::Delete,
            revision: Revision(99),
        }
    }

    fn id(n: u32) -> NodeId {
        format!("n{n}").parse().unwrap()
    }

    fn joins(roster: &mut Roster, n: u32) {
        let record = Record {
            address: format!("10.0.0.{n}:7000"),
            software: "1".into(),
        };
        let bytes = record::encode(&record);
        roster
            .apply(&put(keys::record_key(&id(n)), bytes, n.into()))
            .unwrap();
        let report = Report {
            load: Load::default(),
            standing: Standing::Serving,
        };
        let event = put(keys::report(&id(n)), report.encode(), 50);
        roster.apply(&event).unwrap();
    }

    #[test]
    fn a_node_is_there_while_its_record_is() {
        let mut roster = Roster::default();
        joins(&mut roster, 1);
        assert_eq!((roster.peers()[&id(1)].token, roster.view().len()), (1, 1));
        assert_eq!(roster.turnover(), 1, "a report is none");
        roster.apply(&delete(keys::record_key(&id(1)))).unwrap();
        assert_eq!(roster.turnover(), 2);
        let anew = Roster::default().instead_of(&roster);
        assert_eq!(anew.turnover(), 3, "whatever came and went meanwhile");
        assert_eq!((roster.peers().len(), roster.view().len()), (0, 0));
        assert_eq!(roster.standing(&id(1)), Standing::Lost);
    }

    #[test]
    fn the_stricter_standing_counts_and_a_wish_outlives_the_node() {
        let mut roster = Roster::default();
        joins(&mut roster, 1);
        let wish = record::encode_wish(Standing::Cordoned);
        roster.apply(&put(keys::wish(&id(1)), wish, 60)).unwrap();
        assert_eq!(roster.standing(&id(1)), Standing::Cordoned);
        let report = Report {
            standing: Standing::Draining,
            load: Load::default(),
        };
        roster
            .apply(&put(keys::report(&id(1)), report.encode(), 61))
            .unwrap();
        assert_eq!(roster.standing(&id(1)), Standing::Draining);
        roster.apply(&delete(keys::record_key(&id(1)))).unwrap();
        roster.apply(&delete(keys::report(&id(1)))).unwrap();
        joins(&mut roster, 1);
        assert_eq!(roster.standing(&id(1)), Standing::Cordoned);
        roster.apply(&delete(keys::wish(&id(1)))).unwrap();
        assert_eq!(roster.standing(&id(1)), Standing::Serving);
    }

    #[test]
    fn what_drains_gets_nothing_new_to_own_and_what_is_cordoned_keeps_it() {
        let mut roster = Roster::default();
        (1..4).for_each(|n| joins(&mut roster, n));
        let first = roster.preferred(b"key").unwrap().clone();
        let wish = |standing| put(keys::wish(&first), record::encode_wish(standing), 60);
        roster.apply(&wish(Standing::Cordoned)).unwrap();
        assert_eq!(roster.preferred(b"key"), Some(&first));
        roster.apply(&wish(Standing::Draining)).unwrap();
        assert_ne!(roster.preferred(b"key"), Some(&first));
    }

    #[test]
    fn owners_are_known_with_their_tokens_and_records_of_others_are_skipped() {
        let mut roster = Roster::default();
        let resource: Resource = "state/1".parse().unwrap();
        let owner = Owner {
            node: id(1),
            token: 1,
        };
        roster
            .apply(&put(resource.key(), record::encode(&owner), 7))
            .unwrap();
        assert_eq!(roster.owner(&resource), Some((&owner, 7)));
        let bad = roster.apply(&put(resource.key(), b"?".to_vec(), 8));
        assert!(
            matches!(bad, Err(MembershipError::Unreadable { .. })),
            "{bad:?}"
        );
        assert_eq!(roster.owner(&resource), Some((&owner, 7)));
        roster
            .apply(&put("cluster/later/x".into(), b"?".to_vec(), 9))
            .unwrap();
        roster.apply(&delete(resource.key())).unwrap();
        assert_eq!(roster.owner(&resource), None);
    }
}
