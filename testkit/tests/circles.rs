//! No two modules of these crates use each other, in a circle of any length, beyond parent and child. The arrows of the
//! circles that there are stand in `circles.txt`; whoever removes one removes its line, and none may be added.
//! Read from `use` lines alone, and not from tests.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
const CRATES: [&str; 3] = ["lvs-core", "lvs-io", "lvs-admin"];

/// `director/decide`; the crate's root is empty.
type Module = Vec<String>;
type Arrows = BTreeMap<Module, BTreeSet<Module>>;

fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).expect("a folder of sources").map(|entry| entry.expect("it is listed").path());
    let (folders, files): (Vec<_>, Vec<_>) = entries.partition(|path| path.is_dir());
    let rust = files.into_iter().filter(|path| path.extension().is_some_and(|end| end == "rs"));
    rust.chain(folders.iter().flat_map(|folder| self::files(folder))).collect()
}

fn module(source: &Path, file: &Path) -> Module {
    let path = file.strip_prefix(source).expect("it was found there").with_extension("");
    let mut parts: Module = path.iter().map(|part| part.to_str().expect("text").to_owned()).collect();
    if parts.last().is_some_and(|last| ["lib", "main", "mod"].contains(&last.as_str())) {
        parts.pop();
    }
    parts
}

/// `a::{b, c::{d, e}}` is `a::b`, `a::c::d` and `a::c::e`.
fn expanded(path: &str) -> Vec<String> {
    let Some(open) = path.find('{') else { return vec![path.to_owned()] };
    let (mut depth, mut ends) = (0, vec![open]);
    for (at, letter) in path.char_indices().skip(open) {
        match letter {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 1 => ends.push(at),
            _ => {}
        }
        if depth == 0 {
            ends.push(at);
            break;
        }
    }
    let choices = ends.windows(2).map(|pair| path[pair[0] + 1..pair[1]].trim());
    choices.flat_map(|choice| expanded(&format!("{}{choice}", &path[..open]))).collect()
}

/// The paths that a file uses, without those of its tests.
fn uses(text: &str) -> Vec<String> {
    let text = text.split("#[cfg(test)]\nmod ").next().unwrap_or_default();
    let lines = text.lines().map(|line| line.split("//").next().unwrap_or_default());
    let text: String = lines.flat_map(|line| [line.trim(), "\n"]).collect();
    let mut found = Vec::new();
    let mut rest = text.as_str();
    while let Some((line, after)) = rest.split_once('\n') {
        let is_public = line.starts_with("pub");
        let start =
            if line.starts_with("use ") { Some(4) } else { line.find(" use ").filter(|_| is_public).map(|at| at + 5) };
        let Some(start) = start else {
            rest = after;
            continue;
        };
        let (path, after) = rest[start..].split_once(';').expect("a use ends");
        found.extend(expanded(&path.replace('\n', " ")));
        rest = after;
    }
    found
}

/// The module that a path leads to, as seen from another one: the longest beginning of it that is a module.
fn target(path: &str, from: &Module, modules: &BTreeSet<Module>) -> Option<Module> {
    let words: Vec<&str> = path.split("::").map(|word| word.split(" as ").next().unwrap_or_default().trim()).collect();
    let supers = words.iter().take_while(|word| **word == "super").count();
    let (base, words) = match words[0] {
        "crate" => (&from[..0], &words[1..]),
        "self" => (&from[..], &words[1..]),
        "super" => (&from[..from.len().checked_sub(supers)?], &words[supers..]),
        _ => (&from[..], &words[..]),
    };
    let mut module = base.to_vec();
    for word in words {
        module.push((*word).to_owned());
        if !modules.contains(&module) {
            module.pop();
            break;
        }
    }
    // What lies in the root is the whole crate's.
    (!module.is_empty() && module != *from).then_some(module)
}

/// Who uses whom, without parents and children.
fn arrows(files: &[(Module, String)]) -> Arrows {
    let modules: BTreeSet<Module> = files.iter().map(|(module, _)| module.clone()).collect();
    let of = |(module, text): &(Module, String)| {
        let used = uses(text).into_iter().filter_map(|path| target(&path, module, &modules));
        let used = used.filter(|used| !used.starts_with(module) && !module.starts_with(used));
        (module.clone(), used.collect())
    };
    files.iter().filter(|(module, _)| module.last().is_none_or(|name| name != "tests")).map(of).collect()
}

/// Whom a module leads to.
fn reached<'a>(arrows: &'a Arrows, from: &'a Module) -> BTreeSet<&'a Module> {
    let (mut reached, mut todo) = (BTreeSet::new(), vec![from]);
    while let Some(module) = todo.pop() {
        todo.extend(arrows.get(module).into_iter().flatten().filter(|next| reached.insert(*next)));
    }
    reached
}

/// The arrows that are part of a circle: the one at the end leads back.
fn in_circles(arrows: &Arrows) -> Vec<(&Module, &Module)> {
    let reached: BTreeMap<_, _> = arrows.keys().map(|module| (module, self::reached(arrows, module))).collect();
    let all = arrows.iter().flat_map(|(from, used)| used.iter().map(move |to| (from, to)));
    all.filter(|(from, to)| reached.get(to).is_some_and(|back| back.contains(from))).collect()
}

fn told(krate: &str, circles: &[(&Module, &Module)]) -> String {
    let mut told = String::new();
    for (from, to) in circles {
        writeln!(told, "{krate}: {} -> {}", from.join("/"), to.join("/")).expect("text");
    }
    told
}

#[test]
fn no_modules_use_each_other_in_a_circle_but_those_that_are_known() {
    let mut found = String::new();
    for krate in CRATES {
        let source = Path::new(ROOT).join(krate).join("src");
        let mut files: Vec<_> = files(&source)
            .iter()
            .map(|file| (module(&source, file), fs::read_to_string(file).expect("it is there")))
            .collect();
        files.sort();
        found += &told(krate, &in_circles(&arrows(&files)));
    }
    let known = include_str!("circles.txt");
    let lines = |text: &'static str| text.lines().filter(|line| !line.starts_with('#')).collect::<BTreeSet<_>>();
    let (known, found): (BTreeSet<&str>, BTreeSet<&str>) = (lines(known), found.lines().collect());
    let new: Vec<_> = found.difference(&known).collect();
    assert!(new.is_empty(), "modules use each other in a circle: {new:#?}");
    let gone: Vec<_> = known.difference(&found).collect();
    assert!(gone.is_empty(), "these circles are gone: take their lines out of circles.txt: {gone:#?}");
}

#[test]
fn circles_are_found_in_every_form_of_use() {
    let file = |path: &str, text: &str| (path.split('/').map(str::to_owned).collect(), text.to_owned());
    let found = |files: &[(Module, String)]| told("x", &in_circles(&arrows(files)));
    let one = file("one", "use core::fmt;\npub(crate) use crate::{\n    Root,\n    two::{A, deep::B as C},\n};\n");
    let back = |text: &str| found(&[one.clone(), file("two", ""), file("two/deep", text)]);
    let circle = "x: one -> two/deep\nx: two/deep -> one\n";
    assert_eq!(back("use super::super::one::D;"), circle);
    assert_eq!(back("    use crate::one;"), circle);
    assert_eq!(back("use super::A; // use crate::one;"), "", "parent and child may");
    assert_eq!(back("#[cfg(test)]\nmod tests {\n    use crate::one;\n}"), "");
    let long = [file("a", "use crate::b::B;"), file("b", "use crate::c::C;"), file("c", "use crate::a;")];
    assert_eq!(found(&long), "x: a -> b\nx: b -> c\nx: c -> a\n");
    assert_eq!(found(&long[..2]), "");
}
