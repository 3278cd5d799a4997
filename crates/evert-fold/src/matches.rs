//! Short lists of row numbers.

/// Numbers of rows that belong together. Most often it is one.
#[derive(Clone, Debug, Default)]
pub(crate) enum Matches {
    #[default]
    None,
    One(u32),
    // Boxed, so that keys with one row, the most, take 16 bytes.
    #[allow(clippy::box_collection)]
    Many(Box<Vec<u32>>),
}

impl Matches {
    pub(crate) fn as_slice(&self) -> &[u32] {
        match self {
            Self::None => &[],
            Self::One(row) => std::slice::from_ref(row),
            Self::Many(rows) => rows,
        }
    }

    /// Gives the row's place.
    pub(crate) fn push(&mut self, row: u32) -> u32 {
        match self {
            Self::None => {
                *self = Self::One(row);
                0
            }
            Self::One(first) => {
                *self = Self::Many(Box::new(vec![*first, row]));
                1
            }
            Self::Many(rows) => {
                rows.push(row);
                u32::try_from(rows.len() - 1).expect("fewer than 2^32 rows of state")
            }
        }
    }

    /// Gives the row that has moved to the place, if one has.
    pub(crate) fn remove(&mut self, at: u32) -> Option<u32> {
        let Self::Many(rows) = self else {
            *self = Self::None;
            return None;
        };
        rows.swap_remove(at as usize);
        let moved = rows.get(at as usize).copied();
        match rows.as_slice() {
            [] => *self = Self::None,
            [last] => *self = Self::One(*last),
            _ if rows.capacity() > 4 * rows.len() => rows.shrink_to(2 * rows.len()),
            _ => {}
        }
        moved
    }

    pub(crate) fn heap_bytes(&self) -> usize {
        match self {
            Self::Many(rows) => size_of::<Vec<u32>>() + rows.capacity() * size_of::<u32>(),
            _ => 0,
        }
    }
}
