//! The values of saved entries: numbers as few bytes.

use super::StateError;

/// An integer of 128 bits takes at most so many bytes.
const INTEGER_BYTES_MAX: usize = 19;

/// Writes an entry's value.
#[derive(Debug, Default)]
pub(crate) struct Writer {
    bytes: Vec<u8>,
}

impl Writer {
    /// An integer, small ones in a byte: seven bits a byte, least first, the sign lowest.
    pub(crate) fn integer(&mut self, value: i128) {
        let mut rest = ((value << 1) ^ (value >> 127)) as u128;
        while rest >= 0x80 {
            self.bytes.push(rest as u8 | 0x80);
            rest >>= 7;
        }
        self.bytes.push(rest as u8);
    }

    /// A word whose bits are as good as random.
    pub(crate) fn word(&mut self, value: u64) {
        self.bytes.extend_from_slice(&value.to_le_bytes());
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    pub(crate) fn clear(&mut self) {
        self.bytes.clear();
    }
}

/// Reads what a [`Writer`] has written.
#[derive(Debug)]
pub(crate) struct Reader<'a> {
    bytes: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes }
    }

    pub(crate) fn integer(&mut self) -> Result<i128, StateError> {
        let mut value = 0_u128;
        for i in 0..INTEGER_BYTES_MAX {
            let (&byte, rest) = self.bytes.split_first().ok_or_else(malformed)?;
            self.bytes = rest;
            value |= u128::from(byte & 0x7F) << (7 * i);
            if byte & 0x80 == 0 {
                return Ok((value >> 1) as i128 ^ -((value & 1) as i128));
            }
        }
        Err(malformed())
    }

    /// An integer that fits 64 bits.
    pub(crate) fn count(&mut self) -> Result<i64, StateError> {
        i64::try_from(self.integer()?).map_err(|_| malformed())
    }

    pub(crate) fn word(&mut self) -> Result<u64, StateError> {
        let (word, rest) = self.bytes.split_first_chunk().ok_or_else(malformed)?;
        self.bytes = rest;
        Ok(u64::from_le_bytes(*word))
    }

    /// Nothing is left.
    pub(crate) fn end(self) -> Result<(), StateError> {
        if self.bytes.is_empty() { Ok(()) } else { Err(malformed()) }
    }
}

pub(crate) fn malformed() -> StateError {
    StateError("an entry is malformed".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_come_back_and_damage_is_an_error() {
        let numbers = [0, 1, -1, 63, -64, 64, i128::MAX, i128::MIN, i64::MIN.into()];
        let mut writer = Writer::default();
        for number in numbers {
            writer.integer(number);
        }
        writer.word(u64::MAX - 5);
        let mut reader = Reader::new(writer.bytes());
        for number in numbers {
            assert_eq!(reader.integer().unwrap(), number);
        }
        assert_eq!(reader.word().unwrap(), u64::MAX - 5);
        assert!(reader.word().is_err());
        reader.end().unwrap();
        assert!(Reader::new(&[0x80; 40]).integer().is_err());
        assert!(Reader::new(&[0x80]).integer().is_err());
        assert!(Reader::new(&[0]).end().is_err());
    }
}
