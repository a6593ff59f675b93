//! The `dair` command.

fn main() -> std::process::ExitCode {
    dair_host::cli::run()
}
