//! The rows of a join as entries: a row, how often it is there, its matches if they are counted,
//! and its key. Where only keys are held, a key and how many rows it has.

use super::Join;
use super::side::Side;
use crate::state::{StateError, StateSink, Stateful};
use crate::unsaved::split_number;

const LEFT: u8 = 0;
const RIGHT: u8 = 1;

impl Stateful for Join {
    fn track(&mut self) {
        self.left.unsaved = Some(Default::default());
        self.right.unsaved = Some(Default::default());
    }

    fn save(&mut self, sink: &mut dyn StateSink) {
        self.left.save(LEFT, sink);
        self.right.save(RIGHT, sink);
    }

    fn load(&mut self, key: &[u8], value: &[u8]) -> Result<(), StateError> {
        match key.split_first() {
            Some((&LEFT, row)) => self.left.load(row, value),
            Some((&RIGHT, row)) => self.right.load(row, value),
            _ => Err(StateError("an entry belongs to neither side of a join".into())),
        }
    }

    fn loaded(&mut self) -> Result<(), StateError> {
        for side in [&mut self.left, &mut self.right] {
            // What was loaded is no change of this tick's.
            side.totals.as_mut().map(super::tally::Tally::take_changed);
        }
        Ok(())
    }
}

impl Side {
    fn save(&mut self, prefix: u8, sink: &mut dyn StateSink) {
        let Some(mut unsaved) = self.unsaved.take() else { return };
        if self.keeps_rows {
            unsaved.save(&self.rows, prefix, sink, |row, value| {
                value.extend_from_slice(&self.weight(row).to_le_bytes());
                if let Some(counts) = &self.counts {
                    value.extend_from_slice(&counts.get(row).to_le_bytes());
                }
                value.extend_from_slice(self.key_of(row));
            });
        } else {
            unsaved.save(&self.keys, prefix, sink, |key, value| {
                let total = self.totals.as_ref().map_or(0, |totals| totals.get(key));
                value.extend_from_slice(&total.to_le_bytes());
            });
        }
        self.unsaved = Some(unsaved);
    }

    fn load(&mut self, entry: &[u8], value: &[u8]) -> Result<(), StateError> {
        let (weight, mut rest) = split_number(value)?;
        if weight <= 0 {
            return Err(StateError(format!("a row is there {weight} times")));
        }
        let mut count = 0;
        if self.counts.is_some() {
            (count, rest) = split_number(rest)?;
        }
        let unsaved = self.unsaved.take();
        let key = if self.keeps_rows { rest } else { entry };
        if self.totals.is_some() {
            let is_null = key == self.null_key();
            self.count(key, is_null, weight);
        }
        if self.keeps_rows {
            self.change(key, entry, weight, count);
        }
        self.unsaved = unsaved;
        Ok(())
    }
}
