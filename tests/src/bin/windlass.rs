//! The `windlass` command for the end-to-end tests: cargo tells tests only of binaries of their own package.

fn main() -> std::process::ExitCode {
    windlass::cli::main()
}
