//! The steps that are answered differently on purpose: `netlink/answered-differently.txt`, a line each.

use std::collections::BTreeMap;

/// By recording, step and end, the reason.
pub type Differences = BTreeMap<Place, String>;

/// Where something is different.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Place {
    /// The recording.
    pub recording: String,
    /// Its step.
    pub step: usize,
    /// Whether it is the asking end.
    pub is_client: bool,
}

/// How the reasons of the asking end begin.
const CLIENT: &str = "client: ";

/// Reads the list.
///
/// # Errors
/// If it cannot be read, or a line is not `NAME STEP[-STEP] REASON`.
pub fn listed() -> Result<Differences, String> {
    let file = super::folder().join("answered-differently.txt");
    let text = std::fs::read_to_string(&file).map_err(|error| format!("{}: {error}", file.display()))?;
    parse(&text)
}

fn parse(text: &str) -> Result<Differences, String> {
    let mut differences = Differences::new();
    let lines = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    for line in lines {
        let wrong = || format!("{line}: not NAME STEP[-STEP] REASON");
        let mut words = line.splitn(3, ' ').filter(|word| !word.is_empty());
        let (Some(name), Some(steps), Some(reason)) = (words.next(), words.next(), words.next()) else {
            return Err(wrong());
        };
        let (first, last) = steps.split_once('-').unwrap_or((steps, steps));
        let (first, last): (usize, usize) = (first.parse().map_err(|_| wrong())?, last.parse().map_err(|_| wrong())?);
        for step in first..=last {
            let is_client = reason.starts_with(CLIENT);
            differences.insert(Place { recording: name.to_owned(), step, is_client }, reason.to_owned());
        }
    }
    Ok(differences)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_names_a_step_or_some_in_a_row_and_the_reason() {
        let listed = parse("# heading\n\nraw_dest 3-4 no such method\nraw_dest 4 client: none\n").unwrap();
        let at = |step, is_client| {
            let place = Place { recording: "raw_dest".to_owned(), step, is_client };
            listed.get(&place).map(String::as_str)
        };
        assert_eq!([at(3, false), at(4, false), at(5, false)], [Some("no such method"), Some("no such method"), None]);
        assert_eq!([at(3, true), at(4, true)], [None, Some("client: none")]);
        assert!(parse("raw_dest three no such method").is_err());
    }
}
