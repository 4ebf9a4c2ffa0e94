//! Values that are set by name, as a sysctl, an option `NAME=VALUE` or a line of a configuration file says it: what
//! each takes, and what it is for. Which there are is said beside their structs, in one table for each.

use alloc::string::{String, ToString};
use core::fmt;
use core::time::Duration;

use thiserror::Error;

/// A value that has a name.
///
/// ```
/// use lvs_core::DirectorConfig;
/// let wanted = DirectorConfig::names().find(|named| named.name == "half_open_policy").unwrap();
/// assert_eq!(wanted.format.to_string(), "refuse or evict_oldest");
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NamedValue {
    /// The name: the field's, which is the sysctl's where Linux has one.
    pub name: &'static str,
    /// What it takes.
    pub format: Format,
    /// What it is for, in a sentence or two.
    pub about: &'static str,
}

/// What a value has to look like. Displays as words for an operator: `a number from 0 to 3`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Format {
    /// A whole number that is 0 for off; all others mean on, as with sysctls. `false` and `true` do too.
    Switch,
    /// A whole number from the first to the last.
    Number(u32, u32),
    /// A whole number of seconds, from the first to the last.
    Seconds(u32, u32),
    /// A whole number of milliseconds, from the first to the last.
    Milliseconds(u32, u32),
    /// One of these words.
    Word(&'static [&'static str]),
}

/// Why a value was not set.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
pub enum SetError {
    /// Nothing has this name.
    #[error("there is no setting {0}")]
    UnknownName(String),
    /// What has this name takes other values.
    #[error("{name} takes {format}, not {value:?}")]
    WrongValue {
        /// The name.
        name: &'static str,
        /// What it takes.
        format: Format,
        /// What it was given.
        value: String,
    },
}

impl Format {
    /// The number that `text` stands for; `None` if it has another format.
    fn read(self, text: &str) -> Option<u32> {
        let text = text.trim();
        let number = || text.parse::<u32>().ok();
        match self {
            Self::Switch => match text {
                "false" => Some(0),
                "true" => Some(1),
                _ => number().map(|number| u32::from(number != 0)),
            },
            Self::Number(first, last) | Self::Seconds(first, last) | Self::Milliseconds(first, last) => {
                number().filter(|number| (first..=last).contains(number))
            }
            Self::Word(words) => words.iter().position(|word| *word == text)?.try_into().ok(),
        }
    }

    /// What [`Self::read`] reads as `number`.
    fn write(self, number: u32) -> String {
        match self {
            Self::Word(words) => words.get(number as usize).copied().unwrap_or_default().to_string(),
            _ => number.to_string(),
        }
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Switch => f.write_str("0 or 1"),
            Self::Number(first, last) => range(f, "a number", first, last),
            Self::Seconds(first, last) => range(f, "seconds", first, last),
            Self::Milliseconds(first, last) => range(f, "milliseconds", first, last),
            Self::Word(words) => f.write_str(&words.join(" or ")),
        }
    }
}

/// `what from FIRST to LAST`, as far as there are bounds worth telling.
fn range(f: &mut fmt::Formatter<'_>, what: &str, first: &u32, last: &u32) -> fmt::Result {
    match (*first, *last) {
        (0, u32::MAX) => f.write_str(what),
        (first, u32::MAX) => write!(f, "{what} from {first}"),
        (first, last) => write!(f, "{what} from {first} to {last}"),
    }
}

/// One line of the table of `T`'s values. Each is a number inside; the format says what it counts.
pub(crate) struct Entry<T> {
    pub named: NamedValue,
    pub get: fn(&T) -> u32,
    pub set: fn(&mut T, u32),
}

impl<T> Entry<T> {
    /// The value as [`Self::set_text`] takes it.
    pub fn text(&self, all: &T) -> String {
        self.named.format.write((self.get)(all))
    }

    /// Sets the value.
    ///
    /// # Errors
    /// [`SetError::WrongValue`]; nothing has changed then.
    pub fn set_text(&self, all: &mut T, text: &str) -> Result<(), SetError> {
        let NamedValue { name, format, .. } = self.named;
        let wrong = || SetError::WrongValue { name, format, value: text.to_string() };
        (self.set)(all, format.read(text).ok_or_else(wrong)?);
        Ok(())
    }
}

/// A line for a field: `entry!(name: Format, "what it is for")`, or `entry!(name = path.to.field: …)`.
macro_rules! entry {
    ($name:ident: $format:expr, $about:expr) => {
        entry!($name = $name: $format, $about)
    };
    ($name:ident = $($field:ident).+: $format:expr, $about:expr) => {
        $crate::settings::named::Entry {
            named: $crate::settings::named::NamedValue { name: stringify!($name), format: $format, about: $about },
            get: |all| $crate::settings::named::Value::number(&all.$($field).+, $format),
            set: |all, number| all.$($field).+ = $crate::settings::named::Value::of_number(number, $format),
        }
    };
}
pub(crate) use entry;

/// What a field's type has to do with its number. The format has checked the number already.
pub(crate) trait Value {
    fn number(&self, format: Format) -> u32;
    fn of_number(number: u32, format: Format) -> Self;
}

impl Value for bool {
    fn number(&self, _: Format) -> u32 {
        u32::from(*self)
    }

    fn of_number(number: u32, _: Format) -> Self {
        number != 0
    }
}

impl Value for Duration {
    fn number(&self, format: Format) -> u32 {
        let milliseconds = if matches!(format, Format::Milliseconds(..)) { 1 } else { 1000 };
        u32::try_from(self.as_millis() / milliseconds).unwrap_or(u32::MAX)
    }

    fn of_number(number: u32, format: Format) -> Self {
        let number = number.into();
        if matches!(format, Format::Milliseconds(..)) { Self::from_millis(number) } else { Self::from_secs(number) }
    }
}

macro_rules! integers {
    ($($integer:ty),+) => { $(
        impl Value for $integer {
            fn number(&self, _: Format) -> u32 {
                (*self).into()
            }

            fn of_number(number: u32, _: Format) -> Self {
                Self::try_from(number).unwrap_or(Self::MAX)
            }
        }
    )+ };
}
integers!(u8, u16, u32);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_format_reads_what_it_writes_and_nothing_else() {
        let word = Format::Word(&["refuse", "evict_oldest"]);
        for (format, text, number, written) in [
            (Format::Switch, "1", Some(1), "1"),
            (Format::Switch, "7", Some(1), "1"),
            (Format::Switch, "false", Some(0), "0"),
            (Format::Switch, "on", None, ""),
            (Format::Number(1, 3), " 3\n", Some(3), "3"),
            (Format::Number(1, 3), "0", None, ""),
            (Format::Number(1, 3), "4", None, ""),
            (Format::Number(0, u32::MAX), "4294967295", Some(u32::MAX), "4294967295"),
            (Format::Number(0, u32::MAX), "4294967296", None, ""),
            (Format::Number(0, 9), "-1", None, ""),
            (Format::Number(0, 9), "", None, ""),
            (Format::Seconds(1, 60), "60", Some(60), "60"),
            (Format::Milliseconds(1, 60), "60", Some(60), "60"),
            (word, "evict_oldest", Some(1), "evict_oldest"),
            (word, "evict", None, ""),
        ] {
            assert_eq!(format.read(text), number, "{format}: {text:?}");
            if let Some(number) = number {
                assert_eq!(format.write(number), written, "{format}: {text:?}");
            }
        }
    }

    #[test]
    fn a_duration_is_counted_in_its_formats_unit() {
        for (format, duration) in
            [(Format::Seconds(0, 9), Duration::from_secs(7)), (Format::Milliseconds(0, 9), Duration::from_millis(7))]
        {
            assert_eq!((duration.number(format), Duration::of_number(7, format)), (7, duration));
        }
    }
}
