//! The values of one group in order, with how often each occurs: what min, max and DISTINCT need
//! to stay right when values leave.

use std::collections::BTreeMap;

/// More values than this are kept in a tree.
const FEW_MAX: usize = 32;

/// A multiset in ascending order. Counts may be negative within a tick.
#[derive(Debug, Default)]
pub(crate) enum Multiset<T> {
    #[default]
    Empty,
    One(T, i64),
    // Boxed, so that groups with one value, often the most, stay small.
    #[allow(clippy::box_collection)]
    Few(Box<Vec<(T, i64)>>),
    #[allow(clippy::box_collection)]
    Many(Box<BTreeMap<T, i64>>),
}

impl<T: Ord> Multiset<T> {
    /// Changes how often `value` occurs, and gives the count after. `own` makes the value to keep.
    pub(crate) fn add<Q>(&mut self, value: &Q, weight: i64, own: impl FnOnce(&Q) -> T) -> i64
    where
        T: std::borrow::Borrow<Q>,
        Q: Ord + ?Sized,
    {
        match self {
            Self::Empty => {
                *self = Self::One(own(value), weight);
                weight
            }
            Self::One(only, count) if T::borrow(only) == value => {
                *count += weight;
                let after = *count;
                if after == 0 {
                    *self = Self::Empty;
                }
                after
            }
            Self::One(..) => {
                let Self::One(only, count) = std::mem::take(self) else {
                    unreachable!("it was one value")
                };
                let new = (own(value), weight);
                let pair =
                    if only < new.0 { vec![(only, count), new] } else { vec![new, (only, count)] };
                *self = Self::Few(Box::new(pair));
                weight
            }
            Self::Few(few) => {
                let after = add_to_few(few, value, weight, own);
                if few.len() > FEW_MAX {
                    *self = Self::Many(Box::new(few.drain(..).collect()));
                } else if few.is_empty() {
                    *self = Self::Empty;
                }
                after
            }
            Self::Many(many) => {
                let after = add_to_many(many, value, weight, own);
                if many.len() <= FEW_MAX / 2 {
                    let few = std::mem::take(&mut **many).into_iter().collect();
                    *self = Self::Few(Box::new(few));
                }
                after
            }
        }
    }

    pub(crate) fn min(&self) -> Option<&T> {
        match self {
            Self::Empty => None,
            Self::One(value, count) => (*count > 0).then_some(value),
            Self::Few(few) => few.iter().find(|entry| entry.1 > 0).map(|entry| &entry.0),
            Self::Many(many) => many.iter().find(|entry| *entry.1 > 0).map(|entry| entry.0),
        }
    }

    pub(crate) fn max(&self) -> Option<&T> {
        match self {
            Self::Empty => None,
            Self::One(value, count) => (*count > 0).then_some(value),
            Self::Few(few) => few.iter().rfind(|entry| entry.1 > 0).map(|entry| &entry.0),
            Self::Many(many) => many.iter().rfind(|entry| *entry.1 > 0).map(|entry| entry.0),
        }
    }

    /// How often `value` occurs.
    pub(crate) fn count<Q>(&self, value: &Q) -> i64
    where
        T: std::borrow::Borrow<Q>,
        Q: Ord + ?Sized,
    {
        match self {
            Self::Empty => 0,
            Self::One(only, count) => {
                if T::borrow(only) == value {
                    *count
                } else {
                    0
                }
            }
            Self::Few(few) => {
                let at = few.binary_search_by(|(held, _)| T::borrow(held).cmp(value));
                at.map_or(0, |at| few[at].1)
            }
            Self::Many(many) => many.get(value).copied().unwrap_or(0),
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        matches!(self, Self::Empty)
    }

    /// The values in ascending order, each with its count.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&T, i64)> {
        let (one, few, many) = match self {
            Self::Empty => (None, None, None),
            Self::One(value, count) => (Some((value, *count)), None, None),
            Self::Few(few) => (None, Some(few.iter()), None),
            Self::Many(many) => (None, None, Some(many.iter())),
        };
        let few = few.into_iter().flatten().map(|(value, count)| (value, *count));
        let many = many.into_iter().flatten().map(|(value, count)| (value, *count));
        one.into_iter().chain(few).chain(many)
    }

    /// Bytes held outside the struct, but for what a value holds itself. A tree's nodes are
    /// taken to be three quarters full.
    pub(crate) fn heap_bytes(&self) -> usize {
        match self {
            Self::Empty | Self::One(..) => 0,
            Self::Few(few) => size_of::<Vec<(T, i64)>>() + few.capacity() * size_of::<(T, i64)>(),
            Self::Many(many) => many.len() * size_of::<(T, i64)>() * 4 / 3,
        }
    }
}

fn add_to_few<T, Q>(
    few: &mut Vec<(T, i64)>,
    value: &Q,
    weight: i64,
    own: impl FnOnce(&Q) -> T,
) -> i64
where
    T: Ord + std::borrow::Borrow<Q>,
    Q: Ord + ?Sized,
{
    match few.binary_search_by(|(held, _)| T::borrow(held).cmp(value)) {
        Ok(at) => {
            few[at].1 += weight;
            let after = few[at].1;
            if after == 0 {
                few.remove(at);
            }
            after
        }
        Err(at) => {
            few.insert(at, (own(value), weight));
            weight
        }
    }
}

fn add_to_many<T, Q>(
    many: &mut BTreeMap<T, i64>,
    value: &Q,
    weight: i64,
    own: impl FnOnce(&Q) -> T,
) -> i64
where
    T: Ord + std::borrow::Borrow<Q>,
    Q: Ord + ?Sized,
{
    let Some(count) = many.get_mut(value) else {
        many.insert(own(value), weight);
        return weight;
    };
    *count += weight;
    let after = *count;
    if after == 0 {
        many.remove(value);
    }
    after
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_agrees_with_a_sorted_list_through_all_its_sizes() {
        let mut rng = fastrand::Rng::with_seed(11);
        let mut set = Multiset::<i64>::default();
        let mut model: Vec<i64> = Vec::new();
        for step in 0..20_000 {
            let shrinking = (step / 500) % 2 == 1;
            if !model.is_empty() && rng.u8(0..10) < if shrinking { 8 } else { 2 } {
                let value = model.swap_remove(rng.usize(0..model.len()));
                let left = model.iter().filter(|&&v| v == value).count() as i64;
                assert_eq!(set.add(&value, -1, |v| *v), left);
            } else {
                let value = rng.i64(-60..60);
                model.push(value);
                let now = model.iter().filter(|&&v| v == value).count() as i64;
                assert_eq!(set.add(&value, 1, |v| *v), now);
            }
            assert_eq!(set.min(), model.iter().min());
            assert_eq!(set.max(), model.iter().max());
            if step % 100 == 0 {
                let value = rng.i64(-60..60);
                assert_eq!(set.count(&value), model.iter().filter(|&&v| v == value).count() as i64);
                model.sort_unstable();
                let repeated = |(value, count): (&i64, i64)| vec![*value; count as usize];
                assert_eq!(set.iter().flat_map(repeated).collect::<Vec<_>>(), model);
            }
        }
    }
}
