//! How what happens is told on standard error: lines for people, `lvsd: …`, or a JSON object each. Everything that
//! [`crate::say`] is told goes this way, and never from the packets' path.

use std::fmt;
use std::io;

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

/// Begins to tell. Only the first call of a process counts.
pub fn begin(format: Format) {
    // Where standard error takes nothing there is nobody to tell, and packets matter more.
    let told = tracing_subscriber::fmt().with_writer(io::stderr).with_ansi(false).log_internal_errors(false);
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
        writeln!(writer, "lvsd: {warning}{}", message.0)
    }
}

struct Message(String);

impl Visit for Message {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == "message" {
            // Of what is formatted, Debug and Display are the same.
            self.0 = format!("{value:?}");
        }
    }
}
