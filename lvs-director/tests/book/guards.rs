//! What holds for the pages as a whole: both languages have the same machines, files and commands, no page is left out of
//! the table of contents, and no link leads nowhere.

use std::path::{Path, PathBuf};

use pulldown_cmark::{Event, Parser, Tag};

use crate::page::{Page, Step};
use crate::{pages, read, root};

/// A page, and the same in Chinese.
pub fn both_languages_say_the_same_commands() {
    let names =
        |folder| pages(folder).iter().filter_map(|path| path.file_name()?.to_str().map(str::to_owned)).collect();
    let (english, chinese): (Vec<String>, Vec<String>) = (names(ENGLISH), names(CHINESE));
    assert_eq!(english, chinese, "a page is in one language alone");
    let pairs = english.iter().map(|name| [ENGLISH, CHINESE].map(|folder| Path::new(folder).join(name)));
    for [english, chinese] in pairs.chain([["README.md", "README.zh-CN.md"].map(PathBuf::from)]) {
        let [first, second] = [&english, &chinese].map(|path| without_lines(Page::read(&read(path))));
        assert_eq!(first.plugs, second.plugs, "the machines of {} and {}", english.display(), chinese.display());
        for (first, second) in first.steps.iter().zip(&second.steps) {
            assert_eq!(first, second, "{} and {}", english.display(), chinese.display());
        }
        assert_eq!(first.steps.len(), second.steps.len(), "{} and {}", english.display(), chinese.display());
    }
}

fn without_lines(mut page: Page) -> Page {
    for step in &mut page.steps {
        if let Step::Command(command) = step {
            command.line = 0;
        }
    }
    page
}

/// In either language.
pub fn every_page_is_listed_and_every_link_leads_somewhere() {
    for folder in [ENGLISH, CHINESE] {
        let listed = links(&Path::new(folder).join("SUMMARY.md"));
        for page in pages(folder).iter().filter(|page| !page.ends_with("SUMMARY.md")) {
            assert!(listed.contains(page), "{} is not in the table of contents", page.display());
        }
    }
    let others = ["README.md", "README.zh-CN.md", "CONTRIBUTING.md", "ARCHITECTURE.md", "packaging/README.md"];
    for page in pages(ENGLISH).into_iter().chain(pages(CHINESE)).chain(others.map(PathBuf::from)) {
        for link in links(&page) {
            assert!(root().join(&link).exists(), "{} links to {}", page.display(), link.display());
        }
    }
}

/// Where a page's links to other files lead, from the root.
fn links(page: &Path) -> Vec<PathBuf> {
    let text = read(page);
    let targets = Parser::new(&text).filter_map(|event| match event {
        Event::Start(Tag::Link { dest_url, .. } | Tag::Image { dest_url, .. }) => Some(dest_url.to_string()),
        _ => None,
    });
    let targets = targets.filter(|target| !target.contains("://") && !target.starts_with('#'));
    let folder = page.parent().expect("a file is in a folder");
    targets.map(|target| folder.join(target.split('#').next().unwrap_or_default())).collect()
}

const ENGLISH: &str = "docs/src";
const CHINESE: &str = "docs/zh-CN/src";
