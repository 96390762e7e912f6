//! What stands before every sink, as secrets and services see it. `report::redact` implements it.

/// Hides every value it was told.
pub trait Mask: Send + Sync {
    /// Hides these values from now on, in all forms. Call it once per batch: each call may rebuild an automaton.
    fn learn(&self, values: &[&[u8]]);

    /// The text without the values known by now.
    fn redact(&self, text: &str) -> String;

    /// For a text that arrives in pieces: a value split over two of them is hidden too.
    fn stream(&self) -> Box<dyn MaskStream>;
}

/// One text that arrives in pieces.
pub trait MaskStream: Send {
    /// What can be shown after this piece; the start of what may become a value is held back.
    fn push(&mut self, piece: &str) -> String;

    /// What was held back and turned out to be none.
    fn finish(&mut self) -> String;
}
