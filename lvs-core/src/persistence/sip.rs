//! The SIP persistence engine (ipvsadm: `--pe sip`): finds the Call-ID, by which calls instead of clients are kept
//! together. Decides what counts as a Call-ID in a datagram, exactly as Linux does, its peculiarities included; what is
//! done with it is decided in `director/`. RFC 3261 §20.8, §25.1; the order of the rules is IPVS's.

/// Longest Call-ID that is used, in bytes; IPVS: `IP_VS_PEDATA_MAXLEN`.
pub const CALL_ID_LEN_MAX: usize = 255;

/// A datagram without a Call-ID that could be used. Such a packet of a service with the engine is dropped
/// ([`crate::DropReason::NoPersistenceKey`]).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NoCallId;

/// The value of the first usable Call-ID header of a SIP message, `payload` being that of its UDP datagram.
///
/// # Errors
/// [`NoCallId`]: there is none, its value is longer than [`CALL_ID_LEN_MAX`], or no line end follows it at once.
///
/// ```
/// use lvs_core::persistence::sip::call_id;
/// let message = b"OPTIONS sip:a@example.org SIP/2.0\r\nCall-ID: 843817637684230@998sdasdh09\r\n\r\n";
/// assert_eq!(call_id(message), Ok(&b"843817637684230@998sdasdh09"[..]));
/// ```
pub fn call_id(payload: &[u8]) -> Result<&[u8], NoCallId> {
    let mut rest = payload;
    loop {
        let value = header_value(rest)?;
        let len = value_len(value);
        if len == 0 {
            // Not a value at all: the search goes on behind it.
            rest = value;
            continue;
        }
        // RFC 2543 allowed CR, LF and CRLF as line ends; RFC 3261 only the last. IPVS takes all three.
        let ends_line = matches!(value.get(len), Some(b'\r' | b'\n'));
        return if ends_line && len <= CALL_ID_LEN_MAX { Ok(&value[..len]) } else { Err(NoCallId) };
    }
}

/// What follows the first Call-ID header's colon and blanks. The line `message` starts in the middle of is not looked
/// at.
fn header_value(message: &[u8]) -> Result<&[u8], NoCallId> {
    let mut rest = message;
    loop {
        rest = next_line(rest).ok_or(NoCallId)?;
        let Some(behind_name) = skip_name(rest) else { continue };
        let behind_colon = skip_blanks(behind_name).and_then(|rest| rest.strip_prefix(b":")).ok_or(NoCallId)?;
        return skip_blanks(behind_colon).filter(|value| !value.is_empty()).ok_or(NoCallId);
    }
}

/// The next line, which begins after CR, LF or CRLF and does not continue the line before. `None` at the end.
fn next_line(message: &[u8]) -> Option<&[u8]> {
    let mut rest = message;
    loop {
        let end = rest.iter().position(|byte| is_line_end(*byte))?;
        rest = skip_line_end(&rest[end..]);
        match rest.first()? {
            b' ' | b'\t' => {}
            _ => return Some(rest),
        }
    }
}

/// What follows the header's name: `Call-Id`, whatever comes behind it, or the compact form `i` and no other letter.
fn skip_name(line: &[u8]) -> Option<&[u8]> {
    match line.split_at_checked(FULL_NAME.len()) {
        Some((name, rest)) if name.eq_ignore_ascii_case(FULL_NAME) => Some(rest),
        _ => match line {
            [b'i' | b'I', rest @ ..] if rest.first().is_some_and(|next| !next.is_ascii_alphabetic()) => Some(rest),
            _ => None,
        },
    }
}

/// What follows blanks and at most one folded line break (RFC 3261 §7.3.1). `None` if the line ends here.
fn skip_blanks(line: &[u8]) -> Option<&[u8]> {
    let rest = trim_blanks(line);
    if !rest.first().is_some_and(|byte| is_line_end(*byte)) {
        return Some(rest);
    }
    let next = skip_line_end(rest);
    let continues = matches!(next.first(), Some(b' ' | b'\t'));
    continues.then(|| trim_blanks(next))
}

/// Length of `word ["@" word]` at the start of `value`; 0 if there is none.
fn value_len(value: &[u8]) -> usize {
    let first = word_len(value);
    if first == 0 || value.get(first) != Some(&b'@') {
        return first;
    }
    match word_len(&value[first + 1..]) {
        0 => 0,
        second => first + 1 + second,
    }
}

fn word_len(bytes: &[u8]) -> usize {
    bytes.iter().take_while(|byte| byte.is_ascii_alphanumeric() || WORD_MARKS.contains(byte)).count()
}

fn trim_blanks(line: &[u8]) -> &[u8] {
    let blanks = line.iter().take_while(|byte| matches!(byte, b' ' | b'\t')).count();
    &line[blanks..]
}

/// `rest` starts with CR or LF.
fn skip_line_end(rest: &[u8]) -> &[u8] {
    rest.strip_prefix(b"\r\n").unwrap_or_else(|| rest.get(1..).unwrap_or(&[]))
}

const fn is_line_end(byte: u8) -> bool {
    matches!(byte, b'\r' | b'\n')
}

const FULL_NAME: &[u8] = b"Call-Id";
/// RFC 3261 §25.1, `word`: what may be there beside letters and digits.
const WORD_MARKS: &[u8] = b"!\"%'()*+-./:<>?[\\]_`{}~";

#[cfg(test)]
mod tests {
    use super::*;

    fn check(payload: &str, expected: Option<&str>) {
        assert_eq!(call_id(payload.as_bytes()).ok(), expected.map(str::as_bytes), "{payload:?}");
    }

    #[test]
    fn the_first_line_is_never_a_header() {
        check("Call-ID: a@b\r\n\r\n", None);
        check("Call-ID: a@b\r\nCall-ID: c@d\r\n", Some("c@d"));
    }

    #[test]
    fn lines_begin_after_cr_lf_or_both_and_continued_lines_are_skipped() {
        check("X\rCall-ID: a\r", Some("a"));
        check("X\nCall-ID: a\n", Some("a"));
        check("X\r\n\r\nCall-ID: a\r\n", Some("a"));
        check("X\r\n Call-ID: a\r\n\tCall-ID: b\r\nCall-ID: c\r\n", Some("c"));
        check("X\r\n", None);
        check("", None);
    }

    #[test]
    fn the_name_has_a_long_and_a_compact_form_in_either_case() {
        check("X\r\ncALL-iD: a\r\n", Some("a"));
        check("X\r\nI:a\r\n", Some("a"));
        check("X\r\ni : a\r\n", Some("a"));
        check("X\r\ninfo: a\r\ni: b\r\n", Some("b"));
        check("X\r\ni", None);
        check("X\r\nCall-I: a\r\n", None);
        // Only the first seven letters are compared, so the rest stands where the colon should.
        check("X\r\nCall-Ident: a\r\nCall-ID: b\r\n", None);
    }

    #[test]
    fn blanks_and_one_folded_line_break_may_stand_around_the_colon() {
        check("X\r\nCall-ID \t: \ta\r\n", Some("a"));
        check("X\r\nCall-ID\r\n :\r\n\ta\r\n", Some("a"));
        check("X\r\nCall-ID:\r\n \r\n a\r\nCall-ID: b\r\n", Some("b"));
        check("X\r\nCall-ID\r\n: a\r\n", None);
        check("X\r\nCall-ID a\r\n", None);
        check("X\r\nCall-ID:\r\na\r\n", None);
        check("X\r\nCall-ID:", None);
    }

    #[test]
    fn a_value_is_one_word_or_two_around_an_at_sign() {
        check("X\r\ni: aZ09!\"%'()*+-./:<>?[\\]_`{}~@h\r\n", Some("aZ09!\"%'()*+-./:<>?[\\]_`{}~@h"));
        check("X\r\ni: a\r\n", Some("a"));
        // What is no value at all is passed over; what ends within the line is an error.
        check("X\r\ni: @b\r\ni: c\r\n", Some("c"));
        check("X\r\ni: a@\r\ni: c\r\n", Some("c"));
        check("X\r\ni: #\r\n", None);
        check("X\r\ni: a b\r\ni: c\r\n", None);
        check("X\r\ni: a@b@c\r\n", None);
        check("X\r\ni: a;x\r\n", None);
    }

    #[test]
    fn a_value_has_at_most_255_bytes_and_a_line_end_behind_it() {
        let value = "x".repeat(CALL_ID_LEN_MAX);
        check(&alloc::format!("X\r\ni: {value}\r\n"), Some(&value));
        check(&alloc::format!("X\r\ni: {value}x\r\n"), None);
        check("X\r\ni: abc", None);
        check("X\r\ni: abc\r", Some("abc"));
    }
}
