//! A page of the book as something that can be carried out: the machines of its table, and its blocks in order.
//! Decides which blocks are commands and which are files; how they are carried out is `play`'s.
//!
//! - A table whose first heading is `machine` names the devices, networks, addresses and gateways of the machines.
//! - A block `console` has lines of a prompt, such as `director# `, and a command; lines that begin with `> ` go on with
//!   it; the others are what it prints. `director-2# ` is the second terminal of that machine, where programs stay.
//! - A block whose info string has a second word, such as `ini director:/etc/lvs/rules`, is a file there.

use pulldown_cmark::{CodeBlockKind, Event, Options, Parser, Tag, TagEnd};

/// What a page says to do.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Page {
    pub plugs: Vec<Plug>,
    pub steps: Vec<Step>,
}

/// A row of the table: a device of a machine.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Plug {
    pub machine: String,
    pub device: String,
    pub network: String,
    pub addresses: Vec<String>,
    pub gateways: Vec<String>,
    /// Where a web server listens.
    pub http: Vec<String>,
}

/// A terminal of a machine.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Terminal {
    pub machine: String,
    /// Programs in numbered ones stay, until `^C`.
    pub number: Option<u8>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Step {
    File { machine: String, path: String, text: String },
    Command(Command),
}

/// A command and what it prints.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Command {
    pub terminal: Terminal,
    pub text: String,
    pub printed: Vec<String>,
    /// Its line in the page.
    pub line: usize,
}

impl Page {
    /// # Panics
    /// If a block is neither of what the first lines here say.
    pub fn read(markdown: &str) -> Self {
        let mut page = Self::default();
        let (mut cells, mut cell): (Vec<String>, _) = (Vec::new(), String::new());
        let (mut info, mut text, mut is_of_machines) = (None, String::new(), false);
        let mut said = String::new();
        for (event, range) in Parser::new_ext(markdown, Options::ENABLE_TABLES).into_offset_iter() {
            match event {
                Event::Start(Tag::CodeBlock(CodeBlockKind::Fenced(words))) => {
                    info = Some(words.to_string());
                    text.clear();
                }
                Event::Start(Tag::Paragraph | Tag::Item) => said.clear(),
                Event::Start(Tag::TableCell) => cell.clear(),
                Event::Text(words) | Event::Code(words) => {
                    [&mut cell, &mut text, &mut said].into_iter().for_each(|text| text.push_str(&words));
                }
                Event::End(TagEnd::TableCell) => cells.push(cell.trim().to_owned()),
                Event::End(TagEnd::TableHead) => {
                    is_of_machines = ["machine", "机器"].contains(&cells.remove(0).as_str());
                    cells.clear();
                }
                Event::End(TagEnd::TableRow) => {
                    let row = std::mem::take(&mut cells);
                    page.plugs.extend(is_of_machines.then(|| plug(&row)));
                }
                Event::End(TagEnd::CodeBlock) => {
                    let line = markdown[..range.start].lines().count() + 1;
                    page.block(&info.take().unwrap_or_default(), &text, line, &said);
                }
                _ => {}
            }
        }
        page
    }

    fn block(&mut self, info: &str, text: &str, line: usize, said: &str) {
        let mut words = info.split_whitespace();
        match (words.next(), words.next().and_then(|place| place.split_once(':'))) {
            (Some("console"), _) => self.console(text, line),
            (_, Some((machine, path))) => {
                assert!(said.contains(path), "line {line}: the words before it do not name {path}");
                let (machine, path, text) = (machine.to_owned(), path.to_owned(), text.to_owned());
                self.steps.push(Step::File { machine, path, text });
            }
            _ => {}
        }
    }

    fn console(&mut self, text: &str, first_line: usize) {
        let mut current: Option<Command> = None;
        for (index, line) in text.lines().enumerate() {
            if let Some((terminal, text)) = prompt(line) {
                let command =
                    Command { terminal, text: text.to_owned(), printed: Vec::new(), line: first_line + 1 + index };
                self.steps.extend(current.replace(command).map(Step::Command));
                continue;
            }
            let command = current.as_mut().unwrap_or_else(|| panic!("line {first_line}: a block begins with a prompt"));
            match line.strip_prefix("> ").or((line == ">").then_some("")) {
                Some(more) if command.printed.is_empty() => {
                    command.text.push('\n');
                    command.text.push_str(more);
                }
                _ => command.printed.push(line.trim_end().to_owned()),
            }
        }
        self.steps.extend(current.map(Step::Command));
    }

    /// The machines by their names, in the order of the table.
    pub fn machines(&self) -> Vec<String> {
        let mut names: Vec<String> = Vec::new();
        let named = self.plugs.iter().map(|plug| &plug.machine);
        for name in named.chain(self.commands().map(|command| &command.terminal.machine)) {
            if !names.contains(name) {
                names.push(name.clone());
            }
        }
        names
    }

    pub fn commands(&self) -> impl Iterator<Item = &Command> {
        self.steps.iter().filter_map(|step| match step {
            Step::Command(command) => Some(command),
            Step::File { .. } => None,
        })
    }
}

fn plug(row: &[String]) -> Plug {
    let words = |index: usize| row.get(index).map_or("", String::as_str).split_whitespace().map(str::to_owned);
    let word = |index| words(index).next().unwrap_or_default();
    Plug {
        machine: word(0),
        device: word(1),
        network: word(2),
        addresses: words(3).collect(),
        gateways: words(4).collect(),
        http: words(5).collect(),
    }
}

/// `director# …`, `client$ …`, `director-2# …`; `# …` and `$ …` are on a machine that needs no name.
fn prompt(line: &str) -> Option<(Terminal, &str)> {
    let end = line.find(['#', '$'])?;
    let text = line[end + 1..].strip_prefix(' ')?;
    let name = &line[..end];
    let (machine, number) = match name.split_once('-') {
        Some((machine, number)) => (machine, Some(number.parse().ok()?)),
        None => (name, None),
    };
    let is_name = |name: &str| name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
    let machine = if machine.is_empty() { "machine" } else { machine };
    is_name(machine).then(|| (Terminal { machine: machine.to_owned(), number }, text))
}
