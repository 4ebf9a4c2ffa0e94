//! What stands behind a path's question mark: names and values (RFC 3986 §3.4).

use hyper::Request;

use super::answer::Complaint;

pub(super) struct Query(Vec<(String, String)>);

impl Query {
    pub fn of<B>(request: &Request<B>) -> Self {
        let text = request.uri().query().unwrap_or_default();
        let pairs = text.split('&').filter(|pair| !pair.is_empty());
        let pairs = pairs.map(|pair| pair.split_once('=').unwrap_or((pair, "")));
        Self(pairs.map(|(name, value)| (unquoted(name), unquoted(value))).collect())
    }

    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    pub fn number(&self, name: &str, least: usize, most: usize) -> Result<Option<usize>, Complaint> {
        let Some(text) = self.get(name) else { return Ok(None) };
        let number = text.parse().ok().filter(|number| (least..=most).contains(number));
        number.map(Some).ok_or_else(|| Complaint::bad(format!("{name} is a number from {least} to {most}")))
    }

    /// # Errors
    /// There is another name among them.
    pub fn knows(&self, names: &[&str]) -> Result<(), Complaint> {
        match self.0.iter().find(|(name, _)| !names.contains(&name.as_str())) {
            None => Ok(()),
            Some((name, _)) if names.is_empty() => Err(Complaint::bad(format!("there is no parameter {name} here"))),
            Some((name, _)) => {
                Err(Complaint::bad(format!("there is no parameter {name} here, but {}", names.join(", "))))
            }
        }
    }
}

/// Without percent-encoding (RFC 3986 §2.1); what is none is left as it is.
fn unquoted(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, behind)) = rest.split_first() {
        let byte = (*first == b'%').then(|| quoted(behind)).flatten();
        rest = if byte.is_some() { &behind[2..] } else { behind };
        bytes.push(byte.unwrap_or(*first));
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn quoted(behind: &[u8]) -> Option<u8> {
    let digit = |at: usize| char::from(*behind.get(at)?).to_digit(16);
    u8::try_from(digit(0)? * 16 + digit(1)?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percent_encoding_is_read_and_what_is_none_left() {
        for (quoted, text) in
            [("tcp%3A%5B%3a%3a1%5D:80", "tcp:[::1]:80"), ("%", "%"), ("%4", "%4"), ("%+f", "%+f"), ("%zz%41", "%zzA")]
        {
            assert_eq!(unquoted(quoted), text);
        }
    }
}
