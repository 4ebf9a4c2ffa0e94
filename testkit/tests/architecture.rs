//! ARCHITECTURE.md's tables name files that are there.

use std::path::{Path, PathBuf};

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");

/// `a/{b,c/{d,e}}.rs` is `a/b.rs`, `a/c/d.rs` and `a/c/e.rs`.
fn expanded(path: &str) -> Vec<String> {
    let Some(open) = path.find('{') else { return vec![path.into()] };
    let mut depth = 0;
    let mut commas = vec![open];
    for (at, letter) in path.char_indices().skip(open) {
        match letter {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 1 => commas.push(at),
            _ => {}
        }
        if depth == 0 {
            commas.push(at);
            break;
        }
    }
    let end = *commas.last().expect("the first brace is in it");
    let choices = commas.windows(2).map(|pair| &path[pair[0] + 1..pair[1]]);
    choices.flat_map(|choice| expanded(&format!("{}{choice}{}", &path[..open], &path[end + 1..]))).collect()
}

fn is_there(path: &Path) -> bool {
    path.exists() || path.to_str().is_some_and(|path| path.contains('<') || path.contains('*'))
}

/// A path stands for itself, or continues from the source folder of the crate that the row named last.
fn missing(row: &str) -> Vec<String> {
    let mut missing = Vec::new();
    let mut source: Option<PathBuf> = None;
    let quoted = row.split('`').skip(1).step_by(2);
    let is_path = |word: &&str| word.contains('/') && !word.contains(' ') && !word.starts_with(['-', '/']);
    for path in quoted.filter(is_path).flat_map(expanded) {
        let whole = Path::new(ROOT).join(&path);
        if is_there(&whole) {
            source = path.find("/src/").map(|at| Path::new(ROOT).join(&path[..at + 4])).or(source);
            continue;
        }
        if !source.as_ref().is_some_and(|source| is_there(&source.join(&path))) {
            missing.push(path);
        }
    }
    missing
}

#[test]
fn every_path_in_the_tables_is_there() {
    let text = std::fs::read_to_string(Path::new(ROOT).join("ARCHITECTURE.md")).expect("it is there");
    let (_, table) = text.split_once("## Where is …?").expect("the table has a heading");
    let rows = table.lines().filter(|line| line.starts_with("| ")).skip(1);
    let missing: Vec<_> = rows.flat_map(missing).collect();
    assert!(missing.is_empty(), "ARCHITECTURE.md names what is not there: {missing:#?}");
}
