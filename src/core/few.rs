//! A sorted map of a few entries.
//!
//! What lives here: the one difference from a [`BTreeMap`], which is memory. A
//! `BTreeMap`'s smallest node has room for 11 entries; of what each of ten
//! thousand containers has one or two of, that was a quarter of all memory.
//! What it must not know: what the entries are.
//!
//! [`BTreeMap`]: std::collections::BTreeMap

use std::borrow::Borrow;
use std::fmt;
use std::ops::Index;

use serde::{Serialize, Serializer};

/// Entries in the order of their keys, in one piece of exactly their size.
/// Inserting or removing one moves the others; many are better collected.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Few<K, V>(Box<[(K, V)]>);

impl<K, V> Few<K, V> {
    /// None.
    #[must_use]
    pub fn new() -> Self {
        Self(Box::default())
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// True if there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// All, in the order of the keys.
    pub fn iter(&self) -> Iter<'_, K, V> {
        self.0.iter().map(|(key, value)| (key, value))
    }

    /// The keys, in order.
    #[must_use]
    pub fn keys(&self) -> impl ExactSizeIterator<Item = &K> {
        self.0.iter().map(|(key, _)| key)
    }

    /// The values, in the order of their keys.
    pub fn values(&self) -> impl Iterator<Item = &V> {
        self.0.iter().map(|(_, value)| value)
    }

    /// The values, to be changed.
    pub fn values_mut(&mut self) -> impl Iterator<Item = &mut V> {
        self.0.iter_mut().map(|(_, value)| value)
    }

    /// Forgets all.
    pub fn clear(&mut self) {
        self.0 = Box::default();
    }
}

impl<K: Ord, V> Few<K, V> {
    /// The value under a key.
    pub fn get<Q: Ord + ?Sized>(&self, key: &Q) -> Option<&V>
    where
        K: Borrow<Q>,
    {
        let (_, value) = self.0.get(self.place(key).ok()?)?;
        Some(value)
    }

    /// True if there is a value under the key.
    pub fn contains_key<Q: Ord + ?Sized>(&self, key: &Q) -> bool
    where
        K: Borrow<Q>,
    {
        self.place(key).is_ok()
    }

    /// Puts a value under a key, in place of the one that was there.
    pub fn insert(&mut self, key: K, value: V) {
        let mut entries = std::mem::take(&mut self.0).into_vec();
        match entries.binary_search_by(|(present, _)| present.cmp(&key)) {
            Ok(place) => {
                if let Some((_, present)) = entries.get_mut(place) {
                    *present = value;
                }
            }
            Err(place) => {
                entries.reserve_exact(1);
                entries.insert(place, (key, value));
            }
        }
        self.0 = entries.into();
    }

    /// Takes the value under a key out.
    pub fn remove<Q: Ord + ?Sized>(&mut self, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
    {
        let place = self.place(key).ok()?;
        let mut entries = std::mem::take(&mut self.0).into_vec();
        let (_, value) = entries.remove(place);
        self.0 = entries.into();
        Some(value)
    }

    fn place<Q: Ord + ?Sized>(&self, key: &Q) -> Result<usize, usize>
    where
        K: Borrow<Q>,
    {
        self.0.binary_search_by(|(present, _)| present.borrow().cmp(key))
    }
}

impl<K, V> Default for Few<K, V> {
    fn default() -> Self {
        Self::new()
    }
}

/// Of several values under one key the last counts.
impl<K: Ord, V> FromIterator<(K, V)> for Few<K, V> {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(entries: I) -> Self {
        let mut entries: Vec<(K, V)> = entries.into_iter().collect();
        // Stable: the last under a key stays the last.
        entries.sort_by(|(one, _), (other, _)| one.cmp(other));
        entries.dedup_by(|later, kept| {
            let same = later.0 == kept.0;
            if same {
                std::mem::swap(later, kept);
            }
            same
        });
        Self(entries.into())
    }
}

impl<K: Ord, V> Extend<(K, V)> for Few<K, V> {
    fn extend<I: IntoIterator<Item = (K, V)>>(&mut self, more: I) {
        let present = std::mem::take(&mut self.0).into_vec();
        *self = present.into_iter().chain(more).collect();
    }
}

/// See [`Few::iter`].
type Iter<'a, K, V> = std::iter::Map<std::slice::Iter<'a, (K, V)>, fn(&'a (K, V)) -> (&'a K, &'a V)>;

impl<'a, K, V> IntoIterator for &'a Few<K, V> {
    type Item = (&'a K, &'a V);
    type IntoIter = Iter<'a, K, V>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl<K, V> IntoIterator for Few<K, V> {
    type Item = (K, V);
    type IntoIter = std::vec::IntoIter<(K, V)>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_vec().into_iter()
    }
}

impl<K: Ord + Borrow<Q>, Q: Ord + ?Sized, V> Index<&Q> for Few<K, V> {
    type Output = V;

    #[expect(clippy::panic, reason = "as a `BTreeMap` does; whoever is not sure asks `get`")]
    fn index(&self, key: &Q) -> &V {
        let Some(value) = self.get(key) else { panic!("no entry under this key") };
        value
    }
}

impl<K: fmt::Debug, V: fmt::Debug> fmt::Debug for Few<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

impl<K: Serialize, V: Serialize> Serialize for Few<K, V> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.iter())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// It does what a `BTreeMap` does.
        #[test]
        fn as_a_map(
            first in prop::collection::vec((0..9_u8, 0..9_u8), 0..9),
            more in prop::collection::vec((0..9_u8, 0..9_u8), 0..9),
            steps in prop::collection::vec((0..9_u8, prop::option::of(0..9_u8)), 0..20),
        ) {
            let mut map: BTreeMap<u8, u8> = first.iter().copied().collect();
            let mut few: Few<u8, u8> = first.into_iter().collect();
            map.extend(more.clone());
            few.extend(more);
            for (key, value) in steps {
                prop_assert_eq!(few.get(&key), map.get(&key));
                if let Some(value) = value {
                    map.insert(key, value);
                    few.insert(key, value);
                } else {
                    prop_assert_eq!(few.remove(&key), map.remove(&key));
                }
                prop_assert_eq!(few.contains_key(&key), map.contains_key(&key));
                prop_assert!(few.iter().eq(map.iter()));
                prop_assert_eq!(&few, &map.clone().into_iter().collect());
            }
            prop_assert_eq!(serde_json::to_string(&few).unwrap(), serde_json::to_string(&map).unwrap());
            prop_assert_eq!(format!("{few:?}"), format!("{map:?}"));
        }
    }
}
