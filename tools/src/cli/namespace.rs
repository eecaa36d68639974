//! `pinion namespace`

use std::io::{self, Write};
use std::time::Duration;

use comfy_table::{Table, presets};

use super::failure::Result;
use super::{ServerOptions, duration};

#[derive(Debug, clap::Subcommand)]
pub(super) enum Arguments {
    /// Create a namespace
    Create {
        /// 1 to 64 of A-Z a-z 0-9 _ . -
        name: String,
        /// How long values live that are written without a TTL
        #[arg(long, value_name = "DURATION", value_parser = duration::parse)]
        ttl: Option<Duration>,
    },
    /// List the namespaces
    List,
    /// Change how long values live that are written from now on without a TTL
    Set {
        /// The namespace
        name: String,
        #[command(flatten)]
        lifetime: Lifetime,
    },
    /// Drop a namespace with all its records
    Drop {
        /// The namespace
        name: String,
    },
}

#[derive(Debug, clap::Args)]
#[group(required = true, multiple = false)]
pub(super) struct Lifetime {
    /// This long
    #[arg(long, value_name = "DURATION", value_parser = duration::parse)]
    ttl: Option<Duration>,
    /// For ever
    #[arg(long)]
    no_ttl: bool,
}

pub(super) fn run(server: &ServerOptions, arguments: &Arguments) -> Result<()> {
    let client = server.client()?;
    match arguments {
        Arguments::Create { name, ttl } => client.create_namespace(name, *ttl).map(|_| ())?,
        Arguments::Set { name, lifetime } => client.set_namespace(name, lifetime.ttl)?,
        Arguments::Drop { name } => client.drop_namespace(name)?,
        Arguments::List => {
            let mut table = Table::new();
            table.load_style(presets::NOTHING).set_header(["NAME", "ID", "DEFAULT TTL", "STATE"]);
            for namespace in client.namespaces()? {
                let ttl = namespace.default_ttl.map_or_else(|| "none".to_owned(), duration::show);
                let state = if namespace.dropped { "dropped" } else { "live" };
                table.add_row([namespace.name, namespace.id.to_string(), ttl, state.to_owned()]);
            }
            writeln!(io::stdout().lock(), "{}", table.trim_fmt())?;
        }
    }
    Ok(())
}
