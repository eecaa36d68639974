//! The command line: what can be asked, and how it ends.
//!
//! Exit codes: 0 = done; 1 = the key is missing, a condition failed, or lines of an import were
//! refused; 2 = the command line is wrong; 3 = no connection, or the server or the system failed.

mod completions;
mod delete;
mod duration;
mod export;
mod failure;
mod format;
mod gateway;
mod get;
mod import;
mod namespace;
mod output;
mod progress;
mod put;
mod scan;
mod stat;
mod status;
mod touch;

use std::process::ExitCode;
use std::time::Duration;

use clap::parser::ValueSource;
use clap::{ArgMatches, Args, CommandFactory, FromArgMatches, Parser, Subcommand};
use pinion_bench::Error;
use pinion_client::{Builder, Client, blocking};

use self::failure::{Failure, Result};
use crate::serve::ServeArgs;
use crate::{doctor, serve};

/// A persistent, distributed key-value database.
#[derive(Debug, Parser)]
#[command(name = "pinion", version, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,

    #[command(flatten)]
    server: ServerOptions,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a node
    Serve(ServeArgs),
    /// Serve HTTP (REST, metrics, a page to look at) before a node that runs elsewhere
    Gateway(gateway::Arguments),
    /// Look for what may stand in the way of `serve` with the same options
    Doctor(ServeArgs),
    /// Print the value of a key; exit 1 if there is none
    Get(get::Arguments),
    /// Set the value of a key
    Put(put::Arguments),
    /// Remove a key
    Delete(delete::Arguments),
    /// List keys and values
    Scan(scan::Arguments),
    /// Change when a value expires
    Touch(touch::Arguments),
    /// Print the version, expiry and size of a value
    Stat(stat::Arguments),
    /// Load records from a file
    Import(import::Arguments),
    /// Save all records to a file
    Export(export::Arguments),
    /// Create, list, change and drop namespaces
    #[command(subcommand)]
    Namespace(namespace::Arguments),
    /// Show how the server is doing
    Status(status::Arguments),
    /// Measure this machine and this build
    Bench(Box<pinion_bench::command::Args>),
    /// Print a completion script for a shell
    Completions(completions::Arguments),
}

/// Which server a client command talks to.
#[derive(Debug, Args)]
#[command(next_help_heading = "Options of client commands")]
struct ServerOptions {
    /// The server's address
    #[arg(long, global = true, value_name = "HOST:PORT", default_value = pinion_client::ADDRESS_DEFAULT)]
    connect: String,

    /// The namespace of the keys
    #[arg(long, global = true, value_name = "NAME", default_value = pinion_client::NAMESPACE_DEFAULT)]
    namespace: String,

    /// How long a request may take, retries included
    #[arg(long, global = true, value_name = "DURATION", default_value = "5s", value_parser = duration::parse)]
    timeout: Duration,
}

impl ServerOptions {
    fn builder(&self) -> Builder {
        Client::builder()
            .connect(&self.connect)
            .namespace(&self.namespace)
            .deadline(self.timeout)
            .connect_timeout(self.timeout.min(Duration::from_secs(2)))
            .client_name(concat!("pinion/", env!("CARGO_PKG_VERSION")))
    }

    /// Connects for a command that asks little.
    fn client(&self) -> Result<blocking::Client> {
        Ok(self.builder().build_blocking()?)
    }
}

/// Runs the command that the process was started with.
pub(crate) fn run() -> ExitCode {
    let matches = Cli::command().get_matches();
    let done = match stray(&matches) {
        Some(text) => Err(Failure::Usage(text)),
        None => Cli::from_arg_matches(&matches).unwrap_or_else(|error| error.exit()).run(),
    };
    match done {
        Ok(code) => code,
        Err(failure) => failure.report(),
    }
}

/// Names an option of client commands that was given to a command that would not look at it.
fn stray(matches: &ArgMatches) -> Option<String> {
    let command = matches.subcommand_name()?;
    if !["serve", "doctor", "bench", "completions"].contains(&command) {
        return None;
    }
    let is_given = |option: &&str| matches.value_source(option) == Some(ValueSource::CommandLine);
    let option = ["connect", "namespace", "timeout"].into_iter().find(is_given)?;
    let instead = if command == "bench" { "; what is measured is the --target" } else { "" };
    Some(format!("--{option} is for client commands, {command} is none{instead}"))
}

fn bench(arguments: pinion_bench::command::Args) -> Result<ExitCode, Failure> {
    pinion_bench::command::run(arguments).map_err(|error| match error {
        Error::Usage(text) => Failure::Usage(text),
        Error::Connect { .. } => Failure::System(format!("{error}\nIs a server running there?")),
        other => Failure::System(other.to_string()),
    })
}

impl Cli {
    fn run(self) -> Result<ExitCode, Failure> {
        let server = &self.server;
        let done = match self.command {
            Command::Serve(arguments) => return Ok(serve::run(arguments)),
            Command::Doctor(arguments) => return Ok(doctor::run(arguments)),
            Command::Bench(arguments) => return bench(*arguments),
            Command::Gateway(arguments) => gateway::run(server, arguments),
            Command::Get(arguments) => get::run(server, &arguments),
            Command::Put(arguments) => put::run(server, &arguments),
            Command::Delete(arguments) => delete::run(server, &arguments),
            Command::Scan(arguments) => scan::run(server, &arguments),
            Command::Touch(arguments) => touch::run(server, &arguments),
            Command::Stat(arguments) => stat::run(server, &arguments),
            Command::Import(arguments) => import::run(server, &arguments),
            Command::Export(arguments) => export::run(server, &arguments),
            Command::Namespace(arguments) => namespace::run(server, &arguments),
            Command::Status(arguments) => status::run(server, &arguments),
            Command::Completions(arguments) => completions::run(&arguments),
        };
        done.map(|()| ExitCode::SUCCESS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn options_of_the_server_may_stand_anywhere() {
        let before = Cli::try_parse_from(["pinion", "--connect", "h:1", "get", "k"]).unwrap();
        let after = Cli::try_parse_from(["pinion", "get", "k", "--connect", "h:1"]).unwrap();
        assert_eq!(before.server.connect, after.server.connect);
        assert_eq!(after.server.namespace, "default");
    }

    #[test]
    fn options_that_would_change_nothing_are_refused() {
        let stray = |line: &[&str]| {
            let line = ["pinion"].iter().chain(line);
            stray(&Cli::command().try_get_matches_from(line).unwrap())
        };
        assert_eq!(stray(&["get", "k", "--namespace", "n"]), None);
        assert_eq!(stray(&["bench", "run", "-w", "a"]), None);
        let said = stray(&["bench", "run", "-w", "a", "--connect", "h:1"]).unwrap();
        assert!(said.starts_with("--connect is for client commands") && said.contains("--target"), "{said}");
        assert!(stray(&["--timeout", "3s", "serve"]).is_some());
    }
}
