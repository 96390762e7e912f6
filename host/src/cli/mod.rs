//! The command line: the only code that knows arguments, the environment and the terminal. One file for each command.

mod answer;
mod arguments;
mod completions;
mod compose;
mod doctor;
pub mod exit_code;
mod journal;
mod live;
mod load;
mod lock;
mod plan;
mod planners;
mod plugin;
mod print;
mod project;
mod recorded;
mod reporting;
mod resume;
mod rollback;
mod run;
mod runs;
mod schema;
mod secrets;
mod signal;
mod validate;

use crate::failure::{Failure, Turn};
use arguments::{Arguments, Command};
use clap::Parser;
use exit_code::ExitCode;
use print::Printer;

/// How a command that did not reach its own end says so.
type Result<T> = std::result::Result<T, Stopped>;

/// An exit code, after everything was said.
#[derive(Clone, Copy, Debug)]
struct Stopped(ExitCode);

/// The whole program.
pub fn main() -> std::process::ExitCode {
    if let Some(code) = compile_child() {
        return code;
    }
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => return usage(&error),
    };
    start_tracing();
    let printer = Printer::new();
    // A panic is a bug here, and what it interrupts is as after a crash: the journal says how far it came.
    let command = std::panic::AssertUnwindSafe(|| perform(&arguments, &printer));
    let ended = std::panic::catch_unwind(command).unwrap_or_else(|_| printer.stop(&bug()));
    ended.unwrap_or_else(|Stopped(code)| code).into()
}

fn perform(arguments: &Arguments, printer: &Printer) -> Result<ExitCode> {
    match &arguments.command {
        Command::Run(command) => run::run(&arguments.project, command, printer),
        Command::Validate(command) => validate::validate(&arguments.project, command, printer),
        Command::Plan(command) => plan::plan(&arguments.project, command, printer),
        Command::Resume(command) => resume::resume(&arguments.project, command, printer),
        Command::Rollback(command) => rollback::rollback(&arguments.project, command, printer),
        Command::Approve(command) => answer::answer(&arguments.project, command, true, printer),
        Command::Reject(command) => answer::answer(&arguments.project, command, false, printer),
        Command::Journal(command) => journal::journal(&arguments.project, command, printer),
        Command::Runs(command) => runs::runs(&arguments.project, command, printer),
        Command::Lock(command) => lock::lock(&arguments.project, command, printer),
        Command::Plugin(command) => plugin::plugin(&arguments.project, command, printer),
        Command::Compose(command) => compose::compose(&arguments.project, command, printer),
        Command::Schema(command) => schema::schema(command, printer),
        Command::Completions(command) => completions::completions(command, printer),
        Command::Doctor => doctor::doctor(&arguments.project, printer),
    }
}

/// What was said of it where it happened is above.
fn bug() -> Failure {
    let message = "Windlass has come upon a bug of its own and has stopped where it was";
    Failure::new(Turn::Windlass, "internal.panic", message)
        .help("report it with the lines above; a run that was going on goes on with `windlass resume`")
}

/// `windlass __compile`: the sandbox calls this executable again to compile a component under limits.
fn compile_child() -> Option<std::process::ExitCode> {
    let is_child = std::env::args_os()
        .nth(1)
        .is_some_and(|word| word == crate::sandbox::compile::ARGUMENT);
    is_child.then(crate::sandbox::compile::child)
}

/// Help and version are no errors; everything else is wrong usage.
fn usage(error: &clap::Error) -> std::process::ExitCode {
    // Nothing can be done about a terminal that is gone.
    let _ = error.print();
    let code = if error.use_stderr() {
        ExitCode::USAGE
    } else {
        ExitCode::SUCCEEDED
    };
    code.into()
}

/// Tracing is for whoever debugs Windlass: `WINDLASS_LOG=windlass=debug`. Without it nothing is collected.
fn start_tracing() {
    let Ok(filter) = std::env::var("WINDLASS_LOG") else {
        return;
    };
    let layer = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    // A second subscriber can only come from a test that starts the program twice in one process.
    let _ = layer.try_init();
}
