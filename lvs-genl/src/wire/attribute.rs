//! Attributes: number, length, value. Values are taken as Linux takes them: numbers may be longer than needed (the rest
//! is ignored), never shorter.

use super::{ATTRIBUTE_HEADER_LEN, NUMBER_MASK, aligned};

/// One attribute.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Attribute<'a> {
    /// Its number, without the marks in the upper two bits.
    pub number: u16,
    /// Its value, without padding.
    pub value: &'a [u8],
}

impl<'a> Attribute<'a> {
    /// The first bytes of the value; `None` if there are fewer.
    fn first<const N: usize>(&self) -> Option<[u8; N]> {
        self.value.first_chunk().copied()
    }

    /// A number of one byte.
    pub fn u8(&self) -> Option<u8> {
        self.first::<1>().map(|[byte]| byte)
    }

    /// A number in host order.
    pub fn u16(&self) -> Option<u16> {
        self.first().map(u16::from_ne_bytes)
    }

    /// A number in network order.
    pub fn be16(&self) -> Option<u16> {
        self.first().map(u16::from_be_bytes)
    }

    /// A number in host order.
    pub fn u32(&self) -> Option<u32> {
        self.first().map(u32::from_ne_bytes)
    }

    /// A number in host order.
    pub fn u64(&self) -> Option<u64> {
        self.first().map(u64::from_ne_bytes)
    }

    /// Bytes of fixed length: what is missing is zero, more than `N` is `None`.
    pub fn filled<const N: usize>(&self) -> Option<[u8; N]> {
        let mut filled = [0; N];
        filled.get_mut(..self.value.len())?.copy_from_slice(self.value);
        Some(filled)
    }

    /// A text, which ends at its first zero; `None` without one, or if it is not UTF-8.
    pub fn text(&self) -> Option<&'a str> {
        let end = self.value.iter().position(|byte| *byte == 0)?;
        core::str::from_utf8(&self.value[..end]).ok()
    }

    /// The attributes inside.
    pub const fn nested(&self) -> Attributes<'a> {
        Attributes::new(self.value)
    }
}

/// A row of attributes. Ends at the first one whose length is less than a header's or reaches beyond the row.
#[derive(Clone, Debug)]
pub struct Attributes<'a> {
    rest: &'a [u8],
}

impl<'a> Attributes<'a> {
    /// The attributes in `bytes`.
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }
}

impl<'a> Iterator for Attributes<'a> {
    type Item = Attribute<'a>;

    fn next(&mut self) -> Option<Attribute<'a>> {
        let [a, b, c, d] = *self.rest.first_chunk::<ATTRIBUTE_HEADER_LEN>()?;
        let len = usize::from(u16::from_ne_bytes([a, b]));
        let value = self.rest.get(..len)?.get(ATTRIBUTE_HEADER_LEN..)?;
        self.rest = self.rest.get(aligned(len)..).unwrap_or_default();
        Some(Attribute { number: u16::from_ne_bytes([c, d]) & NUMBER_MASK, value })
    }
}
