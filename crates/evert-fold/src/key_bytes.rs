//! Key bytes of single values, made without arrays: what a lookup by key needs.
//!
//! The bytes are those of arrow-row (58), which `keys` uses for whole batches; a test holds the
//! two together.

/// A block of a long text, and of the first four, which are shorter.
const BLOCK: usize = 32;
const MINI_BLOCK: usize = 8;
const CONTINUES: u8 = 0xFF;

/// Appends NULL of a type whose values have `width` bytes; that of texts and BYTEA is 0.
pub fn push_null(width: usize, out: &mut Vec<u8>) {
    out.resize(out.len() + 1 + width, 0);
}

/// Appends a boolean.
pub fn push_bool(value: bool, out: &mut Vec<u8>) {
    out.extend_from_slice(&[1, u8::from(value)]);
}

/// Appends a SMALLINT.
pub fn push_i16(value: i16, out: &mut Vec<u8>) {
    out.push(1);
    out.extend_from_slice(&(value ^ i16::MIN).to_be_bytes());
}

/// Appends an INTEGER.
pub fn push_i32(value: i32, out: &mut Vec<u8>) {
    out.push(1);
    out.extend_from_slice(&(value ^ i32::MIN).to_be_bytes());
}

/// Appends a BIGINT.
pub fn push_i64(value: i64, out: &mut Vec<u8>) {
    out.push(1);
    out.extend_from_slice(&(value ^ i64::MIN).to_be_bytes());
}

/// Appends a text or the bytes of a BYTEA.
pub fn push_bytes(value: &[u8], out: &mut Vec<u8>) {
    if value.is_empty() {
        out.push(1);
        return;
    }
    out.push(2);
    let (first, rest) = value.split_at(value.len().min(BLOCK));
    push_blocks(first, MINI_BLOCK, out);
    if !rest.is_empty() {
        *out.last_mut().expect("a block was written") = CONTINUES;
        push_blocks(rest, BLOCK, out);
    }
}

/// Each block is filled up with zeros and followed by its length, or by a mark that more follows.
fn push_blocks(value: &[u8], size: usize, out: &mut Vec<u8>) {
    for (index, block) in value.chunks(size).enumerate() {
        if index > 0 {
            *out.last_mut().expect("a block was written") = CONTINUES;
        }
        out.extend_from_slice(block);
        out.resize(out.len() + size - block.len(), 0);
        out.push(block.len() as u8);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{
        ArrayRef, BinaryArray, BooleanArray, Int16Array, Int32Array, Int64Array, StringViewArray,
    };

    use super::*;
    use crate::keys::KeyCodec;

    fn by_codec(value: ArrayRef) -> Vec<u8> {
        let codec = KeyCodec::new([value.data_type()]).expect("a key");
        codec.encode_normalised(&[value], 1).get(0).to_vec()
    }

    fn bytes(push: impl Fn(&mut Vec<u8>)) -> Vec<u8> {
        let mut out = Vec::new();
        push(&mut out);
        out
    }

    #[test]
    fn the_bytes_are_those_of_whole_batches() {
        for length in (0..=40).chain([63, 64, 65, 96, 97, 128, 1000]) {
            let text: String = (0..length).map(|n| char::from(b'a' + (n % 26) as u8)).collect();
            let array = StringViewArray::from(vec![text.as_str()]);
            assert_eq!(bytes(|out| push_bytes(text.as_bytes(), out)), by_codec(Arc::new(array)));
        }
        let raw = [0_u8, 0xFF, 0, 1, 2, 0xFF, 0, 0, 0];
        let array = BinaryArray::from(vec![&raw[..]]);
        assert_eq!(bytes(|out| push_bytes(&raw, out)), by_codec(Arc::new(array)));
        for n in [0, 1, -1, 255, -256, i16::MAX, i16::MIN] {
            assert_eq!(
                bytes(|out| push_i16(n, out)),
                by_codec(Arc::new(Int16Array::from(vec![n])))
            );
            let n = i32::from(n) * 65_537;
            assert_eq!(
                bytes(|out| push_i32(n, out)),
                by_codec(Arc::new(Int32Array::from(vec![n])))
            );
            let n = i64::from(n) * 4_294_967_297;
            assert_eq!(
                bytes(|out| push_i64(n, out)),
                by_codec(Arc::new(Int64Array::from(vec![n])))
            );
        }
        for value in [false, true] {
            let array = BooleanArray::from(vec![value]);
            assert_eq!(bytes(|out| push_bool(value, out)), by_codec(Arc::new(array)));
        }
        let null: Option<&str> = None;
        let nulls: [(usize, ArrayRef); 5] = [
            (0, Arc::new(StringViewArray::from(vec![null]))),
            (1, Arc::new(BooleanArray::from(vec![None]))),
            (2, Arc::new(Int16Array::from(vec![None]))),
            (4, Arc::new(Int32Array::from(vec![None]))),
            (8, Arc::new(Int64Array::from(vec![None]))),
        ];
        for (width, array) in nulls {
            assert_eq!(bytes(|out| push_null(width, out)), by_codec(array));
        }
    }
}
