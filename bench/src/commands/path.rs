//! How `send` and `receive` reach each other, and what guards their streams.

use std::net::SocketAddr;

use super::{Failure, input};
use crate::cli::PathArgs;
use crate::engine::{self, Protection, Streams, Tls};
use crate::net;
use crate::spec::{Link, Side};

/// What was chosen. `connect` is what the sender connects to, as HOST:PORT.
pub(super) fn protection(
    side: Side,
    args: &PathArgs,
    connect: Option<&str>,
) -> Result<Protection, Failure> {
    let Some(folder) = &args.tls_creds else {
        return Ok(if args.plaintext { Protection::Plaintext } else { Protection::Loopback });
    };
    let name = args.tls_name.as_deref();
    let tls = match side {
        Side::Source => {
            let host = connect.and_then(|connect| connect.rsplit_once(':'));
            let host = host.map_or("", |(host, _)| host.trim_matches(['[', ']']));
            Tls::source_from_folder(folder, name.unwrap_or(host))
        }
        Side::Target => Tls::target_from_folder(folder, name),
    };
    let option = format!("--tls-creds {}", folder.display());
    tls.map(Protection::Tls).map_err(|error| input(&option, error))
}

/// Connects the streams of a session.
pub(super) fn connect(
    addresses: &[SocketAddr],
    count: u16,
    link: &Link,
    protection: Protection,
) -> Result<Streams, String> {
    let Protection::Tls(tls) = protection else {
        let streams = net::connect(addresses, count, link).map_err(|error| error.to_string())?;
        return Ok(engine::plain(streams));
    };
    let streams = engine::connect_tls(addresses, count, tls)?;
    net::adopt(&streams, link).map_err(|error| error.to_string())?;
    Ok(streams)
}
