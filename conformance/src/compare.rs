//! What counts as the same behaviour: emitted packets byte for byte outside their volatile bytes, texts word for word
//! outside clock columns. One file a rule: `packets`, `connections`, `texts`; each answers with a [`Difference`].

pub mod connections;
pub mod packets;
pub mod texts;

/// How what was replayed differs from what was recorded.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Difference {
    /// `expected … got …`, on one line.
    pub summary: String,
    /// Where exactly: lines of a dump or of a text.
    pub detail: Vec<String>,
}

impl Difference {
    /// `expected … got …` without further detail.
    pub fn new(expected: impl AsRef<str>, got: impl AsRef<str>) -> Self {
        Self { summary: format!("expected {} got {}", expected.as_ref(), got.as_ref()), detail: Vec::new() }
    }
}
