//! The `windlass` command, built with the benchmarks so that both are of the same profile.

fn main() -> std::process::ExitCode {
    windlass::cli::main()
}
