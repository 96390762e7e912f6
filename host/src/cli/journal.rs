//! `windlass journal RUN`: every record of a run as it is kept, checked against its chain. For support.

use super::{
    Result,
    arguments::{Format, JournalArguments, ProjectArguments},
    exit_code::ExitCode,
    print::Printer,
    project::Project,
    recorded,
};
use crate::{
    failure::Failure,
    journal::{SqliteStore, replay, store::Store},
};
use serde_json::{Value as Json, json};

pub(super) fn journal(
    arguments: &ProjectArguments,
    command: &JournalArguments,
    printer: &Printer,
) -> Result<ExitCode> {
    let project = Project::find(arguments, printer)?;
    let named = command.choice.run.as_deref();
    let found = recorded::find(&project, named, "yet", &|_| true, printer)?;
    let records = SqliteStore::open_for_reading(&found.state).and_then(|store| match store {
        Some(store) => store.read_run(&found.history.id),
        None => Ok(Vec::new()),
    });
    let records = records.or_else(|error| printer.stop(&Failure::from(error)))?;
    for record in records {
        let at = replay::timestamp(record.at_ms);
        match command.format {
            Format::Text => printer.data(&format!("{:>5} {at} {}", record.sequence, record.body)),
            Format::Json => {
                let body: Json = serde_json::from_str(&record.body).unwrap_or(Json::String(record.body));
                printer.data(
                    &json!({
                        "sequence": record.sequence, "version": record.version, "at": at, "record": body,
                        "chain": hex::encode(record.chain),
                    })
                    .to_string(),
                );
            }
        }
    }
    Ok(ExitCode::SUCCEEDED)
}
