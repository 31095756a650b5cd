//! The compact form of a record (postcard): what the journal and the store keep of it.
//!
//! The fields in the order of [`Record`], numbers with as many bytes as they need, texts with their
//! length before them. No field says what it is: both sides know.

use postcard::ser_flavors::Flavor;
use uuid::Uuid;

use super::record::{Phase, Record};

/// Adds the compact form of `record` to `out`.
pub(super) fn write(record: &Record<'_>, out: &mut Vec<u8>) -> postcard::Result<()> {
    postcard::serialize_with_flavor(record, Tail(out))
}

/// The record whose compact form these bytes are, all of them.
pub(super) fn read(bytes: &[u8]) -> Option<Record<'_>> {
    let (record, rest) = postcard::take_from_bytes(bytes).ok()?;
    rest.is_empty().then_some(record)
}

/// When the record was written that these bytes begin with, in microseconds since 1970.
pub(super) fn time(bytes: &[u8]) -> Option<i64> {
    type Before<'a> = (Phase, Uuid, &'a str);
    let ((_, time), _) = postcard::take_from_bytes::<(Before<'_>, i64)>(bytes).ok()?;
    Some(time)
}

/// The end of a buffer, as something to write a record to.
struct Tail<'a>(&'a mut Vec<u8>);

impl Flavor for Tail<'_> {
    type Output = ();

    fn try_push(&mut self, byte: u8) -> postcard::Result<()> {
        self.0.push(byte);
        Ok(())
    }

    fn try_extend(&mut self, bytes: &[u8]) -> postcard::Result<()> {
        self.0.extend_from_slice(bytes);
        Ok(())
    }

    fn finalize(self) -> postcard::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::record::tests::sample;

    fn bytes() -> Vec<u8> {
        let mut bytes = Vec::new();
        write(&sample(), &mut bytes).expect("bytes");
        bytes
    }

    #[test]
    fn a_record_is_read_as_it_was_written() {
        let bytes = bytes();

        assert_eq!(read(&bytes), Some(sample()));
        assert_eq!(time(&bytes), Some(sample().time));
        assert!(bytes.len() < 200, "{} bytes", bytes.len());
    }

    #[test]
    fn what_is_not_exactly_one_record_is_none() {
        let bytes = bytes();

        for end in 0..bytes.len() {
            assert_eq!(read(&bytes[..end]), None, "{end}");
        }
        assert_eq!(read(&[&*bytes, &[0]].concat()), None);
    }

    #[test]
    fn no_single_changed_bit_leaves_the_record_as_it_was() {
        let bytes = bytes();

        for bit in 0..bytes.len() * 8 {
            let mut changed = bytes.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            assert_ne!(read(&changed), Some(sample()), "bit {bit}");
        }
    }
}
