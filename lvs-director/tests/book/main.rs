//! The pages of `docs/` and the README's quick start, carried out command by command on machines made of namespaces, in
//! order, and what is printed compared with what the pages show.

#[path = "../cases/mod.rs"]
mod cases;
mod expect;
mod guards;
mod machines;
mod page;
mod play;
mod serve;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use cases::Case;
use page::Page;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    if let [option, name, at] = words.as_slice()
        && option == "--serve"
    {
        serve::serve(name, at)
    }
    let guards: [(&str, fn()); 2] = [
        ("both_languages_say_the_same_commands", guards::both_languages_say_the_same_commands),
        (
            "every_page_is_listed_and_every_link_leads_somewhere",
            guards::every_page_is_listed_and_every_link_leads_somewhere,
        ),
    ];
    let guard = |(name, run): (&str, fn())| {
        let run = move || {
            run();
            Ok(())
        };
        Case { name: name.to_owned(), is_extra: false, run: Box::new(run) }
    };
    let mut cases: Vec<Case> = guards.map(guard).into();
    for path in pages("docs/src").into_iter().chain(["README.md".into()]) {
        let text = read(&path);
        let name = path.display().to_string();
        if Page::read(&text).commands().next().is_some() {
            let run = move || play::play(&name, &Page::read(&text)).map_err(|denied| Box::new(denied) as _);
            cases.push(Case { name: path.display().to_string(), is_extra: false, run: Box::new(run) });
        }
    }
    cases::main(&cases, AT_ONCE, "", |_| {})
}

/// Pages wait for each other's packets more than they compute.
const AT_ONCE: usize = 3;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace").to_owned()
}

fn read(path: &Path) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The Markdown files of a folder, by name.
fn pages(folder: &str) -> Vec<PathBuf> {
    let files = fs::read_dir(root().join(folder)).unwrap_or_else(|error| panic!("{folder}: {error}"));
    let names = files.map(|file| Path::new(folder).join(file.expect("it is listed").file_name()));
    let mut names: Vec<PathBuf> = names.filter(|path| path.extension().is_some_and(|end| end == "md")).collect();
    names.sort();
    names
}
