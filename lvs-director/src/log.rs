//! How what happens is told on standard error: lines for people, `lvsd: …`, or a JSON object each. Everything that
//! [`crate::say`] is told goes this way, and never from the packets' path.

use std::fmt;
use std::io::{self, Write};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::time::{Duration, Instant};

use clap::ValueEnum;
use serde::Deserialize;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

/// How it is told.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, ValueEnum, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Format {
    /// Lines for people
    #[default]
    Human,
    /// A JSON object each line: time, level, message, and what the message is made of
    Json,
}

/// Begins to tell. Only the first call of a process counts. Lines wait for a thread that writes them: one that standard error
/// does not take holds nobody up, and where too many wait, those that come are counted instead. [`end`] waits for the last.
pub fn begin(format: Format) {
    let told = tracing_subscriber::fmt().with_writer(|| Line).with_ansi(false).log_internal_errors(false);
    // An error means that another call was first.
    let _ = match format {
        Format::Human => tracing::subscriber::set_global_default(told.event_format(Lines).finish()),
        Format::Json => {
            let json = told.json().flatten_event(true).with_current_span(false).with_span_list(false);
            tracing::subscriber::set_global_default(json.with_target(false).finish())
        }
    };
}

/// `lvsd: MESSAGE`, or `lvsd: warning: MESSAGE`; the other fields are in the message too.
struct Lines;

impl<S, N> FormatEvent<S, N> for Lines
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, _: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let warning = if *event.metadata().level() == Level::WARN { "warning: " } else { "" };
        let mut message = Message(String::new());
        event.record(&mut message);
        writeln!(writer, "lvsd: {warning}{}", escaped(&message.0))
    }
}

/// A text without what a terminal would obey. Its lines after the first begin with a space, so that none looks like another
/// message.
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    let mut characters = text.chars().peekable();
    while let Some(character) = characters.next() {
        match character {
            '\n' => {
                escaped.push('\n');
                if characters.peek().is_some_and(|next| *next != ' ') {
                    escaped.push_str("  ");
                }
            }
            '\t' => escaped.push('\t'),
            control if control.is_control() => escaped.extend(control.escape_default()),
            plain => escaped.push(plain),
        }
    }
    escaped
}

/// Where formatted lines go: one call, one line.
struct Line;

impl Write for Line {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match writer() {
            Some(writer) => writer.hand_on(bytes),
            // Without a thread it is written here.
            None => _ = io::stderr().write_all(bytes),
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Waits until every line was written, `PATIENCE` at most. To be called before the process ends.
pub fn end() {
    if let Some(writer) = WRITER.get().and_then(Option::as_ref) {
        writer.wait();
    }
}

enum Told {
    Line(Vec<u8>),
    /// Everything before it is written once this is dropped.
    Mark(#[allow(dead_code, reason = "it is dropped")] SyncSender<()>),
}

struct Queue {
    lines: SyncSender<Told>,
    lost: &'static AtomicU64,
}

static WRITER: OnceLock<Option<Queue>> = OnceLock::new();
static LOST: AtomicU64 = AtomicU64::new(0);

fn writer() -> Option<&'static Queue> {
    WRITER.get_or_init(|| Queue::start(io::stderr(), &LOST).ok()).as_ref()
}

impl Queue {
    fn start(to: impl Write + Send + 'static, lost: &'static AtomicU64) -> io::Result<Self> {
        let (lines, told) = sync_channel(LINES_MAX);
        std::thread::Builder::new().name("log".to_owned()).spawn(move || write_all(&told, to, lost))?;
        Ok(Self { lines, lost })
    }

    fn hand_on(&self, line: &[u8]) {
        if self.lines.try_send(Told::Line(line.to_vec())).is_err() {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn wait(&self) {
        let end = Instant::now() + PATIENCE;
        let (mark, written) = sync_channel(1);
        let mut told = self.lines.try_send(Told::Mark(mark));
        while let Err(TrySendError::Full(mark)) = told
            && Instant::now() < end
        {
            std::thread::sleep(Duration::from_millis(10));
            told = self.lines.try_send(mark);
        }
        let _ = written.recv_timeout(end.saturating_duration_since(Instant::now()));
    }
}

fn write_all(told: &Receiver<Told>, mut to: impl Write, lost: &AtomicU64) {
    for told in told {
        // Where standard error takes nothing there is nobody to tell, and packets matter more.
        if let Told::Line(line) = told {
            let _ = to.write_all(&line);
        }
        match lost.swap(0, Ordering::Relaxed) {
            0 => {}
            count => _ = writeln!(to, "lvsd: warning: {count} messages are lost: standard error took none"),
        }
    }
}

/// Lines that wait to be written.
const LINES_MAX: usize = 4096;
/// How long the end waits for whoever reads standard error.
const PATIENCE: Duration = Duration::from_secs(2);

struct Message(String);

impl Visit for Message {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == "message" {
            // Of what is formatted, Debug and Display are the same.
            self.0 = format!("{value:?}");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Sender, channel};

    use super::*;

    /// Takes a byte only when it is told to.
    struct Stalled(Receiver<()>, Sender<Vec<u8>>);

    impl Write for Stalled {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let _ = self.0.recv();
            let _ = self.1.send(bytes.to_vec());
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_reader_that_takes_nothing_holds_nobody_up_and_hears_how_much_it_missed() {
        static LOST: AtomicU64 = AtomicU64::new(0);
        let (go, wait) = channel();
        let (told, heard) = channel();
        let queue = Queue::start(Stalled(wait, told), &LOST).unwrap();
        for _ in 0..LINES_MAX + 100 {
            queue.hand_on(b"a line\n");
        }
        assert!(LOST.load(Ordering::Relaxed) >= 99);
        drop(go);
        // Its thread ends with what it has.
        drop(queue);
        let all: Vec<u8> = heard.iter().flatten().collect();
        assert!(String::from_utf8(all).unwrap().contains("messages are lost"));
    }

    #[test]
    fn what_a_terminal_would_obey_is_escaped_and_no_line_looks_like_another_message() {
        assert_eq!(escaped("a\x1b[2Jb\nlvsd: c\n  d\r"), "a\\u{1b}[2Jb\n  lvsd: c\n  d\\r");
    }
}
