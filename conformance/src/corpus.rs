//! The recordings that come with the workspace, and the list of those the director does not reach yet.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Every recording of the corpus, sorted by name.
pub fn files() -> std::io::Result<Vec<PathBuf>> {
    files_in(&folder().join("goldens"))
}

/// Every recording of a folder, sorted by name.
pub fn files_in(folder: &Path) -> std::io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "json") {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

/// Recordings that are expected to fail, with the reason: `expected-failures.txt`.
pub fn expected_failures() -> std::io::Result<BTreeMap<String, String>> {
    Ok(parse_expected_failures(&std::fs::read_to_string(folder().join("expected-failures.txt"))?))
}

/// One `name reason` a line; empty lines and lines that start with `#` say nothing.
fn parse_expected_failures(text: &str) -> BTreeMap<String, String> {
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    let split = |line: &str| {
        let (name, reason) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
        (name.to_owned(), reason.trim().to_owned())
    };
    lines.map(split).collect()
}

fn folder() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expected_failures_are_a_name_and_a_reason_a_line() {
        let listed = parse_expected_failures("# heading\n\nnat_a   no tunnel yet\nnat_b\n");
        assert_eq!(listed.get("nat_a").map(String::as_str), Some("no tunnel yet"));
        assert_eq!(listed.get("nat_b").map(String::as_str), Some(""));
        assert_eq!(listed.len(), 2);
    }
}
