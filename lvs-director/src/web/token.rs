//! The token that lets its holder do everything over TCP: kept in a file that nobody else may read, sent in an
//! `Authorization` header (RFC 6750), never in a cookie or a URL. It is compared in the same time whatever was sent.

use std::fmt;
use std::fs;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use subtle::ConstantTimeEq;

/// The token.
#[derive(Clone)]
pub(super) struct Token(String);

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token")
    }
}

impl Token {
    /// What the file holds.
    ///
    /// # Errors
    /// A sentence: it cannot be read, others may read or replace it, or what it holds is too short or cannot be sent.
    pub fn read(path: &Path) -> Result<Self, String> {
        let failed = |cause| format!("cannot read {}: {cause}", path.display());
        let file = fs::File::open(path).map_err(failed)?;
        let is = file.metadata().map_err(failed)?;
        let path = path.display();
        if !is.is_file() {
            return Err(format!("{path} is no file"));
        }
        if is.uid() != 0 && is.uid() != rustix::process::geteuid().as_raw() {
            return Err(format!("{path} is another user's, who could change the token: make it root's or lvsd's own"));
        }
        if is.mode() & 0o077 != 0 {
            return Err(format!("others may use {path}, which is a secret: 'chmod 600 {path}'"));
        }
        let mut text = String::new();
        file.take(LEN_MAX + 2).read_to_string(&mut text).map_err(|cause| format!("cannot read {path}: {cause}"))?;
        Self::of(text.trim_end()).ok_or_else(|| {
            format!("{path} holds no token: one line of {LEN_MIN} to {LEN_MAX} letters and digits; 'openssl rand -hex 32' makes one")
        })
    }

    /// RFC 6750 §2.1 says what a token may be of.
    pub fn of(text: &str) -> Option<Self> {
        let may_be = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~+/=".contains(&byte);
        let is_right = text.len() >= LEN_MIN && text.len() as u64 <= LEN_MAX && text.bytes().all(may_be);
        is_right.then(|| Self(text.to_owned()))
    }

    /// Whether an `Authorization` header sends it.
    pub fn is_sent_by(&self, header: &[u8]) -> bool {
        let Some((scheme, sent)) = header.split_at_checked(SCHEME.len()) else { return false };
        scheme.eq_ignore_ascii_case(SCHEME) && bool::from(self.0.as_bytes().ct_eq(sent.trim_ascii()))
    }
}

const SCHEME: &[u8] = b"Bearer ";
const LEN_MIN: usize = 16;
const LEN_MAX: u64 = 512;

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn only_a_secret_file_with_a_long_token_is_taken() {
        let path = std::env::temp_dir().join(format!("lvsd-token-{}", std::process::id()));
        for (text, mode, complaint) in [
            ("0123456789abcdef\n", 0o600, None),
            ("0123456789abcdef", 0o640, Some("others may use")),
            ("0123456789abcde\n", 0o600, Some("holds no token")),
            ("0123456789abcde \n\n", 0o600, Some("holds no token")),
            ("0123456789\nabcdef0\n", 0o600, Some("holds no token")),
        ] {
            fs::write(&path, text).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            let read = Token::read(&path);
            match complaint {
                None => assert!(read.is_ok(), "{text:?}: {read:?}"),
                Some(complaint) => assert!(read.unwrap_err().contains(complaint), "{text:?}"),
            }
        }
        fs::remove_file(&path).unwrap();
        assert!(Token::read(&path).unwrap_err().contains("cannot read"));
    }

    #[test]
    fn the_whole_token_is_asked_for() {
        let token = Token::of("0123456789abcdef").unwrap();
        assert!(token.is_sent_by(b"Bearer 0123456789abcdef") && token.is_sent_by(b"bearer 0123456789abcdef"));
        for wrong in [
            "",
            "Bearer ",
            "Bearer 0123456789abcde",
            "Bearer 0123456789abcdef0",
            "Basic 0123456789abcdef",
            "0123456789abcdef",
        ] {
            assert!(!token.is_sent_by(wrong.as_bytes()), "{wrong:?}");
        }
    }
}
