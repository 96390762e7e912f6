//! `windlass completions SHELL`.

use super::{
    Result,
    arguments::{Arguments, CompletionsArguments},
    exit_code::ExitCode,
    print::Printer,
};
use clap::CommandFactory;

pub(super) fn completions(command: &CompletionsArguments, printer: &Printer) -> Result<ExitCode> {
    let mut script = Vec::new();
    clap_complete::generate(command.shell, &mut Arguments::command(), "windlass", &mut script);
    printer.data(&String::from_utf8_lossy(&script));
    Ok(ExitCode::SUCCEEDED)
}
