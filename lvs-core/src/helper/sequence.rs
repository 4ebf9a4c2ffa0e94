//! Sequence numbers after text of another length was put into a TCP stream: what each side counts, the other must be
//! told in its own count. The rules are those of Linux's connection tracking, which IPVS's FTP helper relies on;
//! numbers wrap (RFC 9293 §3.4).

use crate::verdict::Direction;

/// How far the two sides' counts are apart, for both directions of one connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Counts {
    requests: Offsets,
    replies: Offsets,
}

impl Counts {
    /// A segment of this direction, with the number its sender gave it, was made `added` bytes longer (modulo 2³²:
    /// shorter).
    pub fn note(&mut self, direction: Direction, sequence: u32, added: u32) {
        match direction {
            Direction::Request => self.requests.note(sequence, added),
            Direction::Reply => self.replies.note(sequence, added),
        }
    }

    /// How many numbers there are.
    pub const WORDS: usize = 6;

    /// All of them, for a snapshot.
    pub fn words(&self) -> [u32; Self::WORDS] {
        let Self { requests, replies } = self;
        [requests.position, requests.before, requests.after, replies.position, replies.before, replies.after]
    }

    /// The same again.
    pub fn of_words(words: [u32; Self::WORDS]) -> Self {
        let [position, before, after, ..] = words;
        let requests = Offsets { position, before, after };
        let [.., position, before, after] = words;
        Self { requests, replies: Offsets { position, before, after } }
    }

    /// Whether both sides count alike.
    pub fn agree(&self) -> bool {
        self.requests.is_none() && self.replies.is_none()
    }

    /// The number a segment of this direction is sent on with.
    pub fn sent(&self, direction: Direction, sequence: u32) -> u32 {
        match direction {
            Direction::Request => self.requests.sent(sequence),
            Direction::Reply => self.replies.sent(sequence),
        }
    }

    /// What a segment of this direction acknowledges, in the count of him whose bytes they are.
    pub fn acknowledged(&self, direction: Direction, number: u32) -> u32 {
        match direction {
            Direction::Request => self.replies.acknowledged(number),
            Direction::Reply => self.requests.acknowledged(number),
        }
    }
}

/// What was put in or left out in one direction so far. Two counts suffice: before and after the last change.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
struct Offsets {
    /// Sequence number, as its sender counts, of the segment that was changed last.
    position: u32,
    /// Bytes added by all changes but the last.
    before: u32,
    /// Bytes added by all changes.
    after: u32,
}

impl Offsets {
    fn note(&mut self, sequence: u32, added: u32) {
        if added == 0 {
            return;
        }
        if self.before == self.after || is_after(sequence, self.position) {
            *self = Self { position: sequence, before: self.after, after: self.after.wrapping_add(added) };
        }
    }

    /// Whether nothing differs.
    fn is_none(&self) -> bool {
        self.before == 0 && self.after == 0
    }

    /// The number a segment is sent on with, from the one its sender gave it.
    fn sent(&self, sequence: u32) -> u32 {
        let offset = if is_after(sequence, self.position) { self.after } else { self.before };
        sequence.wrapping_add(offset)
    }

    /// An acknowledgement from the other side, in the count of him whose bytes are acknowledged.
    fn acknowledged(&self, number: u32) -> u32 {
        let is_behind = is_after(number.wrapping_sub(self.before), self.position);
        number.wrapping_sub(if is_behind { self.after } else { self.before })
    }
}

/// RFC 9293 §3.4: `number` comes after `other`, if less than half the space lies between.
const fn is_after(number: u32, other: u32) -> bool {
    (number.wrapping_sub(other) as i32) > 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_sides_count_on_as_recorded_from_linux() {
        // ftp_longer: 45 bytes at …948 become 51, 44 at …993 become 50.
        let mut offsets = Offsets::default();
        offsets.note(2_106_187_948, 6);
        assert_eq!(offsets.sent(2_106_187_948), 2_106_187_948);
        assert_eq!(offsets.acknowledged(2_106_187_993), 2_106_187_987);
        offsets.note(2_106_187_993, 6);
        assert_eq!(offsets.sent(2_106_187_993), 2_106_187_999);
        assert_eq!(offsets.acknowledged(2_106_188_037), 2_106_188_025);
        assert_eq!(offsets.sent(2_106_188_037), 2_106_188_049);
    }

    #[test]
    fn numbers_wrap_and_text_may_become_shorter() {
        let mut offsets = Offsets::default();
        offsets.note(u32::MAX - 9, 3_u32.wrapping_neg());
        assert_eq!(offsets.sent(u32::MAX - 9), u32::MAX - 9);
        assert_eq!(offsets.sent(20), 17);
        assert_eq!(offsets.acknowledged(17), 20);
        assert_eq!(offsets.acknowledged(u32::MAX - 9), u32::MAX - 9);
    }

    #[test]
    fn an_older_segment_changes_nothing_any_more() {
        let mut offsets = Offsets::default();
        offsets.note(1_000, 5);
        let noted = offsets;
        offsets.note(1_000, 5);
        offsets.note(900, 5);
        offsets.note(1_100, 0);
        assert_eq!(offsets, noted);
    }
}
