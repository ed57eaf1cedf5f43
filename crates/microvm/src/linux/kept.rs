//! Parts of a process that stay the image's until they change: most calls change few of them.

use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// A value that costs nothing to copy, and that is copied when it is changed while others have it.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Kept<T>(Arc<T>);

impl<T> From<T> for Kept<T> {
    fn from(value: T) -> Self {
        Self(Arc::new(value))
    }
}

impl<T> Deref for Kept<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T: Clone> DerefMut for Kept<T> {
    fn deref_mut(&mut self) -> &mut T {
        Arc::make_mut(&mut self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_changes_it_changes_a_copy_of_its_own() {
        let image = Kept::from(vec![1, 2]);
        let mut call = image.clone();
        assert!(std::ptr::eq(&raw const *image, &raw const *call));
        call.push(3);
        assert_eq!(
            (image.as_slice(), call.as_slice()),
            (&[1, 2][..], &[1, 2, 3][..])
        );
    }
}
