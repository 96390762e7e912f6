//! What can be typed. Every flag has an environment variable `WINDLASS_<FLAG>`.

use crate::run::Assumed;
use clap::{Args, Parser, Subcommand, ValueEnum};
use std::{path::PathBuf, time::Duration};

/// Deployment pipelines whose every step is a sandboxed WebAssembly component
#[derive(Debug, Parser)]
#[command(name = "windlass", version, arg_required_else_help = true, after_help = after_help())]
pub(super) struct Arguments {
    #[command(flatten)]
    pub(super) project: ProjectArguments,
    #[command(subcommand)]
    pub(super) command: Command,
}

/// Where the project and its state are.
#[derive(Clone, Debug, Args)]
pub(super) struct ProjectArguments {
    /// Work as if started in this directory
    #[arg(short = 'C', value_name = "DIR", global = true, env = "WINDLASS_C")]
    pub(super) directory: Option<PathBuf>,
    /// Keep journal, artifacts and caches here instead of `$XDG_STATE_HOME/windlass/<name>-<hash of root>`
    #[arg(long, value_name = "DIR", global = true, env = "WINDLASS_STATE_DIR")]
    pub(super) state_dir: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Run a pipeline
    Run(Box<RunArguments>),
    /// Check pipeline files: all problems at once; touches nothing
    Validate(ValidateArguments),
    /// Show what would run, with which plugin and which capabilities
    Plan(PlanArguments),
    /// Go on with an interrupted or paused run, exactly where it stopped
    Resume(ResumeArguments),
    /// Undo a finished run, after showing what that means
    Rollback(RollbackArguments),
    /// Answer yes to a stage that waits for a person
    Approve(AnswerArguments),
    /// Answer no to a stage that waits for a person
    Reject(AnswerArguments),
    /// History of runs
    Runs(RunsArguments),
    /// Who holds a concurrency group; give it back for a holder that is dead
    Lock(super::lock::LockArguments),
    /// The raw journal of a run, for support
    Journal(JournalArguments),
    /// Plugins: what they are and what they ask for
    Plugin(PluginArguments),
    /// Compose files
    Compose(ComposeArguments),
    /// JSON Schemas of what Windlass reads and writes
    Schema(SchemaArguments),
    /// Completions for a shell
    Completions(CompletionsArguments),
    /// What is missing on this machine
    Doctor,
}

/// Which pipeline, with which values.
#[derive(Clone, Debug, Args)]
pub(super) struct PipelineArguments {
    /// The pipeline file (default: windlass.yaml, else pipelines/deploy.yaml)
    pub(super) file: Option<PathBuf>,
    /// Lay pipeline.NAME.yaml over pipeline.yaml
    #[arg(short = 'e', long = "env", value_name = "NAME", env = "WINDLASS_ENV")]
    pub(super) overlay: Option<String>,
    #[command(flatten)]
    pub(super) values: ValueArguments,
}

/// Values for `vars` and `env`.
#[derive(Clone, Debug, Default, Args)]
pub(super) struct ValueArguments {
    /// Set a variable of `vars`; repeatable
    #[arg(long = "var", value_name = "NAME=VALUE", env = "WINDLASS_VAR", value_parser = pair)]
    pub(super) vars: Vec<(String, String)>,
    /// Read variables from a YAML file; repeatable
    #[arg(long, value_name = "FILE", env = "WINDLASS_VAR_FILE")]
    pub(super) var_file: Vec<PathBuf>,
    /// Read `env` values from a file, above all other layers; repeatable
    #[arg(long, value_name = "FILE", env = "WINDLASS_ENV_FILE")]
    pub(super) env_file: Vec<PathBuf>,
}

#[derive(Debug, Args)]
pub(super) struct RunArguments {
    #[command(flatten)]
    pub(super) pipeline: PipelineArguments,
    #[command(flatten)]
    pub(super) selection: Selection,
    /// Show what would be done, and stop: the same as `windlass plan`
    #[arg(short = 'n', long, env = "WINDLASS_DRY_RUN")]
    pub(super) dry_run: bool,
    /// Answer yes to every question; without a terminal and without it, a question is a failure
    #[arg(short = 'y', long, env = "WINDLASS_YES")]
    pub(super) yes: bool,
    /// Refuse plugins that windlass.lock does not know as they are (default where CI is set)
    #[arg(long, env = "WINDLASS_LOCKED")]
    pub(super) locked: bool,
    #[command(flatten)]
    pub(super) conduct: Conduct,
    /// Keep no journal: for tests and benchmarks; such a run cannot be resumed
    #[arg(long, env = "WINDLASS_EPHEMERAL")]
    pub(super) ephemeral: bool,
}

/// How a run goes, whichever command starts it.
#[derive(Debug, Args)]
pub(super) struct Conduct {
    /// How many stages may run at once (default: the number of processors)
    #[arg(long, value_name = "N", env = "WINDLASS_JOBS", value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub(super) jobs: Option<u16>,
    /// How to show progress
    #[arg(long, value_enum, default_value_t, env = "WINDLASS_PROGRESS")]
    pub(super) progress: Progress,
    /// Write a report when the run has ended: junit=FILE or json=FILE; repeatable
    #[arg(long = "report", value_name = "KIND=FILE", env = "WINDLASS_REPORT", value_parser = report)]
    pub(super) reports: Vec<Report>,
    /// Stop the run in order after this time (90s, 10m, 2h)
    #[arg(long, value_name = "DURATION", env = "WINDLASS_TIMEOUT", value_parser = duration)]
    pub(super) timeout: Option<Duration>,
    #[command(flatten)]
    pub(super) lock: super::lock::LockFlags,
}

/// Which run.
#[derive(Debug, Args)]
pub(super) struct RunChoice {
    /// The run's id; without it, the newest run of this project for which the command makes sense
    pub(super) run: Option<String>,
}

#[derive(Debug, Args)]
pub(super) struct ResumeArguments {
    #[command(flatten)]
    pub(super) choice: RunChoice,
    /// Say what became of a stage's effect that nothing else has an answer for: STAGE=done or STAGE=not-done; repeatable
    #[arg(long, value_name = "STAGE=ANSWER", env = "WINDLASS_ASSUME", value_parser = assumption)]
    pub(super) assume: Vec<(String, Assumed)>,
    #[command(flatten)]
    pub(super) conduct: Conduct,
}

#[derive(Debug, Args)]
pub(super) struct RollbackArguments {
    #[command(flatten)]
    pub(super) choice: RunChoice,
    /// Do it: without a terminal and without this, it is only shown
    #[arg(short = 'y', long, env = "WINDLASS_YES")]
    pub(super) yes: bool,
    /// Cross points of no return: their state was restored from this backup
    #[arg(long, value_name = "BACKUP", env = "WINDLASS_AFTER_RESTORING")]
    pub(super) after_restoring: Option<String>,
    /// Say what became of an effect of a stage's undo that nothing else has an answer for: STAGE=done or STAGE=not-done; repeatable
    #[arg(long, value_name = "STAGE=ANSWER", env = "WINDLASS_ASSUME", value_parser = assumption)]
    pub(super) assume: Vec<(String, Assumed)>,
    #[command(flatten)]
    pub(super) conduct: Conduct,
}

#[derive(Debug, Args)]
pub(super) struct AnswerArguments {
    #[command(flatten)]
    pub(super) choice: RunChoice,
    /// Which stage (default: the only one that waits)
    #[arg(long, env = "WINDLASS_STAGE")]
    pub(super) stage: Option<String>,
    /// Why; it is kept in the journal
    #[arg(long, value_name = "TEXT", env = "WINDLASS_REASON")]
    pub(super) reason: String,
}

#[derive(Debug, Args)]
pub(super) struct JournalArguments {
    #[command(flatten)]
    pub(super) choice: RunChoice,
    #[arg(long, value_enum, default_value_t, env = "WINDLASS_FORMAT")]
    pub(super) format: Format,
}

/// Which stages run.
#[derive(Clone, Debug, Default, Args)]
pub(super) struct Selection {
    /// Run only these stages; repeatable
    #[arg(long, value_name = "STAGE", env = "WINDLASS_ONLY", value_delimiter = ',')]
    pub(super) only: Vec<String>,
    /// Leave these stages out; repeatable
    #[arg(long, value_name = "STAGE", env = "WINDLASS_SKIP", value_delimiter = ',')]
    pub(super) skip: Vec<String>,
    /// Leave out everything that does not come after this stage
    #[arg(long, value_name = "STAGE", env = "WINDLASS_FROM")]
    pub(super) from: Option<String>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(super) enum Progress {
    /// tty on a terminal, else plain
    #[default]
    Auto,
    Tty,
    Plain,
    /// One JSON object a line, on standard output
    Json,
}

/// A report file.
#[derive(Clone, Debug)]
pub(super) struct Report {
    pub(super) kind: ReportKind,
    pub(super) path: PathBuf,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ReportKind {
    Junit,
    Json,
}

#[derive(Debug, Args)]
pub(super) struct ValidateArguments {
    /// Pipeline files (default: windlass.yaml, else pipelines/deploy.yaml)
    pub(super) files: Vec<PathBuf>,
    /// Warnings fail too
    #[arg(long, env = "WINDLASS_STRICT")]
    pub(super) strict: bool,
    /// Lay pipeline.NAME.yaml over pipeline.yaml
    #[arg(short = 'e', long = "env", value_name = "NAME", env = "WINDLASS_ENV")]
    pub(super) overlay: Option<String>,
    #[command(flatten)]
    pub(super) values: ValueArguments,
}

#[derive(Debug, Args)]
pub(super) struct PlanArguments {
    #[command(flatten)]
    pub(super) pipeline: PipelineArguments,
    /// How to show it
    #[arg(long, value_enum, default_value_t, env = "WINDLASS_FORMAT")]
    pub(super) format: Format,
    /// Write the plan as JSON to a file
    #[arg(long, value_name = "FILE", env = "WINDLASS_OUT")]
    pub(super) out: Option<PathBuf>,
    /// Exit with 2 where something would change
    #[arg(long, env = "WINDLASS_DETAILED_EXITCODE")]
    pub(super) detailed_exitcode: bool,
    /// Do not ask the plugins what they would do
    #[arg(long, env = "WINDLASS_NO_EFFECTS")]
    pub(super) no_effects: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(super) enum Format {
    #[default]
    Text,
    Json,
}

#[derive(Debug, Args)]
pub(super) struct RunsArguments {
    #[command(subcommand)]
    pub(super) command: RunsCommand,
    /// The pipeline whose runs are meant (default: windlass.yaml, else pipelines/deploy.yaml)
    #[arg(long = "file", value_name = "FILE", global = true, env = "WINDLASS_FILE")]
    pub(super) file: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub(super) enum RunsCommand {
    /// The latest runs
    List {
        #[arg(long, value_enum, default_value_t)]
        format: Format,
        /// At most so many
        #[arg(long, default_value_t = 20)]
        limit: usize,
    },
    /// One run with its stages
    Show {
        /// The run's id (default: the last one)
        run: Option<String>,
        #[arg(long, value_enum, default_value_t)]
        format: Format,
    },
    /// The log of a run
    Logs {
        /// The run's id (default: the last one)
        run: Option<String>,
        /// Only this stage
        #[arg(long)]
        stage: Option<String>,
        /// Go on until the run has ended
        #[arg(short = 'f', long = "follow")]
        follow: bool,
    },
}

#[derive(Debug, Args)]
pub(super) struct PluginArguments {
    #[command(subcommand)]
    pub(super) command: PluginCommand,
}

#[derive(Debug, Subcommand)]
pub(super) enum PluginCommand {
    /// The built-in plugins
    List {
        #[arg(long, value_enum, default_value_t)]
        format: Format,
    },
    /// One plugin: what it takes, what it asks for and why. Nothing of it is executed
    Inspect {
        /// A built-in plugin's name, or a component file
        plugin: String,
        #[arg(long, value_enum, default_value_t)]
        format: Format,
    },
}

#[derive(Debug, Args)]
pub(super) struct ComposeArguments {
    #[command(subcommand)]
    pub(super) command: ComposeCommand,
}

#[derive(Debug, Subcommand)]
pub(super) enum ComposeCommand {
    /// Read, merge and resolve compose files, and print the result in the specification's own keys
    Config(ComposeConfig),
}

#[derive(Debug, Args)]
pub(super) struct ComposeConfig {
    /// The files; the later is laid over the earlier (default: compose.yaml or docker-compose.yml, and its override)
    #[arg(short = 'f', long = "file", value_name = "FILE", num_args = 1.., env = "WINDLASS_FILE")]
    pub(super) files: Vec<PathBuf>,
    /// Read variables from this file instead of the .env beside the first compose file; repeatable
    #[arg(long, value_name = "FILE", env = "WINDLASS_ENV_FILE")]
    pub(super) env_file: Vec<PathBuf>,
    /// Services with this profile belong to the project too; `*` for all; repeatable
    #[arg(long = "profile", value_name = "NAME", env = "WINDLASS_PROFILE")]
    pub(super) profiles: Vec<String>,
    /// The project's name (default: `name` of the files, else the name of their directory)
    #[arg(short = 'p', long, value_name = "NAME", env = "WINDLASS_PROJECT_NAME")]
    pub(super) project_name: Option<String>,
    /// How to print it
    #[arg(long, value_enum, default_value_t, env = "WINDLASS_FORMAT")]
    pub(super) format: ComposeFormat,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(super) enum ComposeFormat {
    #[default]
    Yaml,
    Json,
}

#[derive(Debug, Args)]
pub(super) struct SchemaArguments {
    #[arg(value_enum)]
    pub(super) of: SchemaOf,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum SchemaOf {
    /// The pipeline file
    Pipeline,
    /// The lines of `--progress json`
    Events,
}

#[derive(Debug, Args)]
pub(super) struct CompletionsArguments {
    #[arg(value_enum)]
    pub(super) shell: clap_complete::Shell,
}

fn pair(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("it takes NAME=VALUE")?;
    Ok((name.to_string(), value.to_string()))
}

fn assumption(text: &str) -> Result<(String, Assumed), String> {
    let wanted = "it takes STAGE=done or STAGE=not-done";
    // The name of a matrix cell has a `=` in it too.
    let (stage, answer) = text.rsplit_once('=').ok_or(wanted)?;
    let answer = match answer {
        "done" => Assumed::Done,
        "not-done" => Assumed::NotDone,
        _ => return Err(wanted.into()),
    };
    Ok((stage.to_string(), answer))
}

fn report(text: &str) -> Result<Report, String> {
    let (kind, path) = text
        .split_once('=')
        .ok_or("it takes KIND=FILE, for example junit=report.xml")?;
    let kind = match kind {
        "junit" => ReportKind::Junit,
        "json" => ReportKind::Json,
        _ => return Err("the kinds are junit and json".into()),
    };
    if path.is_empty() {
        return Err("the file is missing".into());
    }
    Ok(Report {
        kind,
        path: path.into(),
    })
}

fn duration(text: &str) -> Result<Duration, String> {
    crate::pipeline::duration::parse(text)
        .ok_or_else(|| "it takes a number and a unit: 90s, 10m, 2h".to_string())
}

fn after_help() -> String {
    let rows = super::exit_code::ExitCode::ALL
        .iter()
        .map(|one| format!("  {:>3}  {}", one.code, one.meaning));
    format!("Exit codes:\n{}", rows.collect::<Vec<_>>().join("\n"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    /// No two flags share a letter, and every flag has its environment variable.
    #[test]
    fn the_command_line_is_consistent() {
        Arguments::command().debug_assert();
        for name in ["run", "resume", "rollback", "approve"] {
            let arguments = Arguments::command();
            let command = arguments.find_subcommand(name).expect("it is there");
            let flags = command
                .get_arguments()
                .filter(|argument| argument.get_long().is_some());
            for flag in flags {
                let long = flag.get_long().unwrap_or_default();
                assert!(flag.get_env().is_some(), "{name} --{long}");
            }
        }
    }
}
