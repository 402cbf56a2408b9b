//! DuckDB's BIGNUM, integers of any length, as `numeric`.

use super::EncodeError;
use super::number::ascii8;
use super::writer::Writer;

/// `numeric` has 131,072 digits before the point at most; so many bytes can
/// have more.
const LONGEST: usize = 54_427;

/// A BIGNUM as decimal digits.
pub(super) struct BigNum {
    negative: bool,
    /// ASCII, without leading zeros, at least one.
    digits: Vec<u8>,
}

impl BigNum {
    /// Reads DuckDB's form: three bytes of length and sign, then the absolute
    /// value, big-endian; of a negative number all bits are flipped.
    pub(super) fn read(stored: &[u8]) -> Result<Self, EncodeError> {
        let Some((head, bytes)) = stored.split_first_chunk::<3>() else {
            return Err(EncodeError::TypeMismatch("BIGNUM".to_owned()));
        };
        if bytes.len() > LONGEST {
            return Err(EncodeError::out_of_range("numeric", "BIGNUM"));
        }
        let negative = head[0] & 0x80 == 0;
        let flip = if negative { 0xff } else { 0 };
        let mut limbs: Vec<u32> = bytes
            .rchunks(4)
            .rev()
            .map(|chunk| {
                chunk
                    .iter()
                    .fold(0, |limb, byte| (limb << 8) | u32::from(byte ^ flip))
            })
            .collect();
        // Eight digits at a time fall off the end.
        let mut groups = Vec::new();
        let mut first = 0;
        while first < limbs.len() {
            let mut rest = 0u64;
            for limb in &mut limbs[first..] {
                let value = (rest << 32) | u64::from(*limb);
                *limb = (value / 100_000_000) as u32;
                rest = value % 100_000_000;
            }
            groups.push(ascii8(rest as u32));
            while limbs.get(first) == Some(&0) {
                first += 1;
            }
        }
        let digits: Vec<u8> = groups
            .into_iter()
            .rev()
            .flatten()
            .skip_while(|digit| *digit == b'0')
            .collect();
        match digits.is_empty() {
            true => Ok(Self {
                negative: false,
                digits: vec![b'0'],
            }),
            false => Ok(Self { negative, digits }),
        }
    }

    pub(super) fn text(&self, w: &mut Writer) {
        if self.negative {
            w.byte(b'-');
        }
        w.bytes(&self.digits);
    }

    pub(super) fn binary(&self, w: &mut Writer) {
        let groups: Vec<u16> = self
            .digits
            .rchunks(4)
            .rev()
            .map(|group| {
                group
                    .iter()
                    .fold(0, |number, digit| number * 10 + u16::from(digit - b'0'))
            })
            .collect();
        let weight = groups.len() - 1;
        let trailing = groups.iter().rev().take_while(|group| **group == 0).count();
        let groups = &groups[..groups.len() - trailing];
        w.array((groups.len() as u16).to_be_bytes());
        w.array(if groups.is_empty() { 0 } else { weight as u16 }.to_be_bytes());
        w.array(if self.negative { 0x4000u16 } else { 0 }.to_be_bytes());
        w.array(0u16.to_be_bytes());
        for group in groups {
            w.array(group.to_be_bytes());
        }
    }
}
