//! `pinion put`

use std::ffi::OsString;
use std::io::{self, Read};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use pinion_client::{Condition, Durability, PutOptions, Ttl, Version};

use super::ServerOptions;
use super::failure::{Failure, Result};

/// The most that is read from standard input, in bytes: the largest value a server can be set to.
const VALUE_BYTES_MAX: u64 = 16 << 20;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The key
    key: OsString,

    /// The value; `-` or nothing = read it from standard input
    value: Option<OsString>,

    /// Let the value expire after this long, or `never` whatever the namespace says
    #[arg(long, value_name = "DURATION")]
    ttl: Option<Ttl>,

    #[command(flatten)]
    durability: DurabilityOption,

    #[command(flatten)]
    condition: ConditionOptions,
}

/// When a write is acknowledged.
#[derive(Debug, clap::Args)]
pub(super) struct DurabilityOption {
    /// Acknowledge before the disk has the write: a crash may take the last moments
    #[arg(long)]
    buffered: bool,
}

impl DurabilityOption {
    pub(super) fn durability(&self) -> Durability {
        if self.buffered { Durability::Buffered } else { Durability::Sync }
    }
}

/// What must hold for a write.
#[derive(Debug, clap::Args)]
#[group(multiple = false)]
pub(super) struct ConditionOptions {
    /// Only if the key has no value
    #[arg(long)]
    if_absent: bool,

    /// Only if the key has a value
    #[arg(long)]
    if_present: bool,

    /// Only if the value has this version (as `pinion stat` prints it)
    #[arg(long, value_name = "VERSION", value_parser = version)]
    if_version: Option<Version>,
}

impl ConditionOptions {
    pub(super) fn condition(&self) -> Option<Condition> {
        match self.if_version {
            Some(version) => Some(Condition::Version(version)),
            None if self.if_absent => Some(Condition::Absent),
            None if self.if_present => Some(Condition::Present),
            None => None,
        }
    }
}

pub(super) fn run(server: &ServerOptions, arguments: &Arguments) -> Result<()> {
    let value = match &arguments.value {
        Some(value) if value != "-" => value.clone().into_vec(),
        _ => standard_input()?,
    };
    let mut options = PutOptions::default().durability(arguments.durability.durability());
    if let Some(ttl) = arguments.ttl {
        options = options.ttl(ttl);
    }
    let (client, key) = (server.client()?, arguments.key.as_bytes());
    match arguments.condition.condition() {
        Some(condition) => client.put_if_with(key, value, condition, options)?,
        None => client.put_with(key, value, options)?,
    };
    Ok(())
}

fn standard_input() -> Result<Vec<u8>> {
    let mut value = Vec::new();
    io::stdin()
        .lock()
        .take(VALUE_BYTES_MAX + 1)
        .read_to_end(&mut value)
        .map_err(|error| Failure::System(format!("cannot read standard input: {error}")))?;
    if value.len() as u64 > VALUE_BYTES_MAX {
        return Err(Failure::Usage(format!("a value has at most {VALUE_BYTES_MAX} bytes")));
    }
    Ok(value)
}

/// 32 hexadecimal digits.
fn version(text: &str) -> Result<Version, String> {
    let wrong = || "a version is 32 hexadecimal digits".to_owned();
    if text.len() != 32 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err(wrong());
    }
    u128::from_str_radix(text, 16).map(|number| Version(number.to_be_bytes())).map_err(|_| wrong())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_as_they_are_printed() {
        let printed = Version([0xab; 16]).to_string();
        assert_eq!(version(&printed), Ok(Version([0xab; 16])));
        for bad in ["", "12", &"g".repeat(32), &format!("+{}", "0".repeat(31))] {
            assert!(version(bad).is_err());
        }
    }
}
