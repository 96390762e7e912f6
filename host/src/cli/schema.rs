//! `windlass schema`: JSON Schemas for editors and for whoever reads the event lines.

use super::{
    Result,
    arguments::{SchemaArguments, SchemaOf},
    exit_code::ExitCode,
    print::Printer,
};

pub(super) fn schema(command: &SchemaArguments, printer: &Printer) -> Result<ExitCode> {
    let schema = match command.of {
        SchemaOf::Pipeline => crate::pipeline::schema::schema(),
        SchemaOf::Events => crate::report::json::schema(),
    };
    printer.data(&format!("{schema:#}"));
    Ok(ExitCode::SUCCEEDED)
}
