//! The secret that hashes and random choices begin with. A new one at each start, unless a file keeps it: then clients are
//! shared between the workers, and FullNAT's local ports tried, as before the last start, and as on every director that is
//! given the same file. Which server a client gets depends on it for no scheduler that hashes.

use std::fs::{self, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use lvs_core::Seed;

use crate::denied::Denied;

/// What the file keeps; where there is none, it is made, for its owner alone. Without a file, a new secret.
///
/// # Errors
/// The file cannot be read or made, others may read it, or it keeps something else.
pub fn seed(file: Option<&Path>) -> Result<Seed, Denied> {
    let Some(path) = file else { return random().map(Seed::new) };
    if let Some(seed) = read(path)? {
        return Ok(seed);
    }
    let secret = random()?;
    let made = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    made.and_then(|mut file| writeln!(file, "{secret:016x}"))
        .map_err(|cause| Denied::new(format_args!("write {}", path.display()), cause))?;
    Ok(Seed::new(secret))
}

/// What the file keeps, if there is one.
///
/// # Errors
/// As [`seed`], but nothing is made.
pub fn read(path: &Path) -> Result<Option<Seed>, Denied> {
    let denied = |cause| Denied::new(format_args!("read {}", path.display()), cause);
    let file = match fs::File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        outcome => outcome.map_err(denied)?,
    };
    if file.metadata().map_err(denied)?.mode() & 0o077 != 0 {
        let path = path.display();
        return Err(Denied::said(format_args!("others may use {path}, which is a secret: 'chmod 600 {path}'")));
    }
    let mut text = String::new();
    file.take(LEN_MAX).read_to_string(&mut text).map_err(denied)?;
    let digits = text.trim();
    let is_right = digits.len() == 16 && digits.bytes().all(|digit| digit.is_ascii_hexdigit());
    match u64::from_str_radix(digits, 16) {
        Ok(secret) if is_right => Ok(Some(Seed::new(secret))),
        _ => Err(Denied::said(format_args!(
            "{} keeps no secret: it is to hold 16 hexadecimal digits; without it lvsd makes one",
            path.display()
        ))),
    }
}

/// A secret nobody outside can guess.
pub(crate) fn random() -> Result<u64, Denied> {
    let mut bytes = [0; 8];
    fs::File::open("/dev/urandom")
        .and_then(|mut random| random.read_exact(&mut bytes))
        .map_err(|cause| Denied::new("read /dev/urandom", cause))?;
    Ok(u64::from_ne_bytes(bytes))
}

/// More than 16 digits and a line's end are no secret of ours.
const LEN_MAX: u64 = 64;

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_file_is_made_once_and_keeps_its_secret_from_others() {
        let path = std::env::temp_dir().join(format!("lvsd-seed-{}", std::process::id()));
        let _ = fs::remove_file(&path);
        assert_eq!(read(&path), Ok(None));
        let made = seed(Some(&path)).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        assert_eq!(seed(Some(&path)), Ok(made));
        for (text, complaint) in
            [("", "keeps no secret"), ("00112233445566\n", "keeps no secret"), ("+123456789abcdef", "keeps no")]
        {
            fs::write(&path, text).unwrap();
            assert!(seed(Some(&path)).unwrap_err().to_string().contains(complaint), "{text}");
        }
        fs::write(&path, "00112233445566Aa\n").unwrap();
        assert_eq!(seed(Some(&path)), Ok(Seed::new(0x0011_2233_4455_66aa)));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        assert!(seed(Some(&path)).unwrap_err().to_string().contains("chmod 600"));
        fs::remove_file(&path).unwrap();
    }
}
