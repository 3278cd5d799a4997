//! A recursion as entries: the rows of its inputs, and the time of its last tick. What it has
//! found is computed anew from them.

use evert_model::LogTime;

use super::Recursion;
use super::held::HeldRows;
use crate::state::{StateError, StateSink, Stateful};
use crate::unsaved::split_number;

/// The entry of the last tick's time; others are of inputs by number.
const NOW: u8 = u8::MAX;

/// Inputs a step may have beside the last round: each input has its own prefix.
pub(crate) const OTHERS_MAX: usize = NOW as usize - 1;

impl Stateful for Recursion {
    fn track(&mut self) {
        self.inputs.iter_mut().for_each(HeldRows::track);
    }

    fn save(&mut self, sink: &mut dyn StateSink) {
        for (number, held) in self.inputs.iter_mut().enumerate() {
            let number = u8::try_from(number).expect("the plan was checked for it");
            held.save(number, sink);
        }
        if self.now != self.saved_now
            && let Some(now) = self.now
        {
            sink.put(&[NOW], &now.get().to_le_bytes());
            self.saved_now = self.now;
        }
    }

    fn load(&mut self, key: &[u8], value: &[u8]) -> Result<(), StateError> {
        match key.split_first() {
            Some((&NOW, _)) => {
                let now = LogTime::new(split_number(value)?.0);
                (self.now, self.saved_now, self.is_stale) = (Some(now), Some(now), true);
                Ok(())
            }
            Some((&number, row)) => match self.inputs.get_mut(number as usize) {
                Some(held) => held.load(row, value),
                None => Err(StateError(format!("a recursion has no input {number}"))),
            },
            None => Err(StateError("an entry of a recursion has no key".into())),
        }
    }
}
