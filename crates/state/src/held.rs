//! Whether a value is this node's at this moment, and what goes with it when it is not.

use std::sync::Arc;

use bytes::Bytes;

use crate::content::Content;
use crate::durable::chunk;
use crate::global::{Global, Head};
use crate::tier::Phase;
use crate::{Durability, GlobalError, StateError, Value};

impl Value {
    /// Whether this node may act as the key's owner at this moment.
    pub(crate) fn is_held(&self) -> bool {
        self.holding.as_ref().is_none_or(|holding| holding.holds())
    }

    pub(crate) fn check_held(&self) -> Result<(), StateError> {
        self.is_held().then_some(()).ok_or(StateError::Elsewhere)
    }

    /// What was seen of the value, if the owner of its key would say the same: of a key that is
    /// another node's, or that has no value, it may say something else.
    pub(crate) fn if_known<T>(
        &self,
        seen: Option<Result<T, StateError>>,
    ) -> Option<Result<T, StateError>> {
        seen.filter(|seen| match seen {
            Err(StateError::Elsewhere | StateError::NotFound) => self.holding.is_none(),
            _ => true,
        })
    }

    /// Whether this node has nothing to do with the key any more.
    pub(crate) fn is_closed(&self) -> bool {
        let holding = self.holding.as_ref();
        holding.is_some_and(|holding| holding.is(Phase::Closed))
    }

    /// Whether something would be lost if another node took the key over.
    pub(crate) fn is_bound(&self) -> bool {
        // What guests write into its memory after this is nowhere else.
        let mapped = self.content.read().is_mapped();
        self.is_ephemeral() || mapped || !self.locks.are_free()
    }

    /// Whether there is a value, in memory only.
    pub(crate) fn is_ephemeral(&self) -> bool {
        let content = self.content.read();
        content.exists()
            && content.durability == Durability::Ephemeral
            && !content.is_expired(self.core.now_ms())
    }

    /// Whether there is a value that the global tier, or other nodes, should hold too.
    pub(crate) fn is_backed(&self, content: &Content) -> bool {
        content.exists() && self.is_to_be_backed(content.durability)
    }

    /// Whether values of a durability are in more than this node's memory.
    pub(crate) fn is_to_be_backed(&self, durability: Durability) -> bool {
        match durability {
            Durability::Ephemeral => false,
            Durability::Durable => true,
            // A node that stands alone has nowhere to put copies.
            Durability::Replicated => self.core.node.copies.is_some(),
        }
    }

    /// Where values of a durability are besides, to be asked at once: what this value was is not to
    /// be taken for what its key is after this node has had its slot anew.
    pub(crate) fn global_now(
        &self,
        durability: Durability,
    ) -> Result<Arc<dyn Global>, GlobalError> {
        if self.is_closed() {
            return Err(GlobalError::Fenced);
        }
        let node = &self.core.node;
        Ok(match (durability, &node.copies) {
            (Durability::Replicated, Some(copies)) => copies.clone(),
            _ => node.global.clone(),
        })
    }

    /// The value, for another node that is to have a copy of it, if there is to be one.
    pub(crate) fn copied(&self) -> Option<(Head, Vec<(u64, Bytes)>)> {
        let mut content = self.content.write();
        if !content.exists() || content.durability != Durability::Replicated {
            return None;
        }
        // When it is removed, that node is to hear of it.
        content.chunks.base = content.chunks.base.max(content.version);
        content.backed = Durability::Replicated;
        let numbers = content.chunks.all();
        let chunks = numbers.map(|number| (number as u64, chunk(&content, content.size, number)));
        let chunks = chunks.filter(|(_, bytes)| !bytes.is_empty()).collect();
        Some((content.head(), chunks))
    }

    /// Makes durable what the value's writes changed, before another node takes it over. Changes
    /// that were under way are waited for.
    pub(crate) async fn flush(&self) -> Result<(), StateError> {
        let _gate = self.gate.lock().await;
        if self.is_backed(&self.content.read()) {
            self.push_known().await?;
        }
        match self.owes_removal() {
            true => self.remove_base().await,
            false => Ok(()),
        }
    }

    /// Whether the global tier still holds a value that is gone here.
    pub(crate) fn owes_removal(&self) -> bool {
        let content = self.content.read();
        !content.exists() && content.chunks.base != 0
    }

    /// Whether nothing would be lost if the key were forgotten.
    pub(crate) fn is_idle(&self) -> bool {
        let content = self.content.read();
        !content.exists() && content.chunks.base == 0 && self.locks.are_free()
    }
}
