//! Lines and progress for the run's report.

use crate::bindings::stage::events;
pub use events::Level;

/// Kept in the run's log and not shown.
pub fn trace(message: impl AsRef<str>) {
    line(Level::Trace, message, &[]);
}

/// Kept in the run's log and not shown.
pub fn debug(message: impl AsRef<str>) {
    line(Level::Debug, message, &[]);
}

/// Shown.
pub fn info(message: impl AsRef<str>) {
    line(Level::Info, message, &[]);
}

/// Shown, as something to look at.
pub fn warn(message: impl AsRef<str>) {
    line(Level::Warn, message, &[]);
}

/// Shown, as what went wrong.
pub fn error(message: impl AsRef<str>) {
    line(Level::Error, message, &[]);
}

/// One line with fields.
pub fn line(level: Level, message: impl AsRef<str>, fields: &[(&str, String)]) {
    let fields: Vec<_> = fields
        .iter()
        .map(|(name, value)| ((*name).to_owned(), value.clone()))
        .collect();
    events::log(level, message.as_ref(), &fields);
}

/// Progress of the stage: `done` of `total`, in whatever unit `note` names.
pub fn progress(done: u64, total: Option<u64>, note: Option<&str>) {
    events::progress(done, total, note);
}
