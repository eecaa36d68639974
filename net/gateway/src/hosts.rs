//! The names that requests may be sent to.
//!
//! A page from elsewhere whose name was made to point at this machine (DNS rebinding) would be of the
//! same origin as the gateway and could read and change everything. Its requests carry its own name, so
//! names that nobody allowed are refused. Addresses in numbers and `localhost` cannot be made to point
//! elsewhere and always pass, whatever the port: tunnels change it.

use std::net::{Ipv4Addr, Ipv6Addr};

use hyper::header::HOST;
use hyper::http::request::Parts;

use crate::problem::Problem;

/// Which names pass.
#[derive(Debug, Clone)]
pub(crate) struct Hosts {
    names: Vec<String>,
    any: bool,
}

impl Hosts {
    pub(crate) fn new(names: &[String]) -> Self {
        Self {
            names: names.iter().map(|name| name.trim_end_matches('.').to_ascii_lowercase()).collect(),
            any: names.iter().any(|name| name == "*"),
        }
    }

    /// Refuses a request that was sent to a name which is not ours.
    pub(crate) fn check(&self, head: &Parts) -> Result<(), Problem> {
        let mut fields = head.headers.get_all(HOST).iter();
        let field = fields.next().map(|host| host.to_str().unwrap_or_default());
        if fields.next().is_some() {
            return Err(Problem::bad_request("bad_host", "a request has one Host header"));
        }
        // A request line with a whole address in it wins over the header (RFC 9112, 3.2.2).
        let Some(authority) = head.uri.authority().map(|authority| authority.as_str()).or(field) else {
            return Err(Problem::bad_request("bad_host", "a request has a Host header"));
        };
        if self.any || self.passes(name_of(authority)) {
            return Ok(());
        }
        Err(Problem::misdirected(format!(
            "this gateway is not called {:?}; allow a name with --http-hosts if it is meant to be",
            name_of(authority)
        )))
    }

    fn passes(&self, name: &str) -> bool {
        let bare = name.trim_end_matches('.').to_ascii_lowercase();
        let numbers = bare.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
        bare == "localhost"
            || bare.parse::<Ipv4Addr>().is_ok()
            || numbers.is_some_and(|numbers| numbers.parse::<Ipv6Addr>().is_ok())
            || self.names.contains(&bare)
    }
}

/// What stands before the port.
fn name_of(authority: &str) -> &str {
    let end = match authority.rfind(']') {
        Some(bracket) => bracket + 1,
        None => authority.find(':').unwrap_or(authority.len()),
    };
    &authority[..end]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_localhost_pass_and_names_must_be_allowed() {
        let hosts = Hosts::new(&["DB.example.com".into()]);
        for good in
            ["localhost", "LOCALHOST:80", "127.0.0.1:7601", "10.1.2.3", "[::1]:7601", "db.example.com.:1"]
        {
            assert!(hosts.passes(name_of(good)), "{good}");
        }
        for bad in [
            "",
            "evil.example",
            "127.0.0.1.evil.example",
            "localhost.evil.example:7601",
            "[x]",
            "::1",
            "[::1",
        ] {
            assert!(!hosts.passes(name_of(bad)), "{bad}");
        }
    }
}
