//! Whether a value is this node's at this moment, and what goes with it when it is not.

use crate::tier::Phase;
use crate::{Durability, StateError, Value};

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
        self.is_ephemeral() || !self.locks.are_free()
    }

    /// Whether there is a value, in memory only.
    pub(crate) fn is_ephemeral(&self) -> bool {
        let content = self.content.read();
        content.exists()
            && content.durability == Durability::Ephemeral
            && !content.is_expired(self.core.now_ms())
    }

    /// Makes durable what the value's writes changed, before another node takes it over. Changes
    /// that were under way are waited for.
    pub(crate) async fn flush(&self) -> Result<(), StateError> {
        let _gate = self.gate.lock().await;
        if self.content.read().is_durable() {
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
