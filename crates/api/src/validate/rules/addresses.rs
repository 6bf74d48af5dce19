//! Addresses: IP, CIDR, `host:port` and Unix sockets.

use std::net::{IpAddr, Ipv6Addr};

use super::{fqdn, port};
use crate::validate::findings::{Problem, Verdict};

pub(crate) fn ip_address(address: &str) -> Verdict {
    if parse_ip(address).is_some() {
        return Ok(());
    }
    Err(format!("`{address}` is not an IP address").into())
}

/// An IPv6 address may name a zone: `fe80::1%eth0`.
fn parse_ip(address: &str) -> Option<IpAddr> {
    match address.split_once('%') {
        None => address.parse().ok(),
        Some((_, "")) => None,
        Some((address, _)) => address.parse::<Ipv6Addr>().ok().map(IpAddr::V6),
    }
}

/// An address or a CIDR block; the address of a block may have bits set beyond the prefix.
pub(crate) fn ip_or_cidr(text: &str) -> Verdict {
    if text.matches('/').count() != 1 {
        return ip_address(text);
    }
    let (address, bits) = text.split_once('/').unwrap_or((text, ""));
    let max = match address.parse::<IpAddr>() {
        Ok(IpAddr::V4(_)) => Some(32),
        Ok(IpAddr::V6(_)) => Some(128),
        Err(_) => None,
    };
    let plain = bits.len() <= 3 && bits.bytes().all(|b| b.is_ascii_digit()) && (bits == "0" || !bits.starts_with('0'));
    if let (Some(max), true, Ok(bits)) = (max, plain, bits.parse::<u8>())
        && bits <= max
    {
        return Ok(());
    }
    Err(Problem::new(format!("`{text}` is not a CIDR block")).hint("the form is ADDRESS/BITS, as in 10.0.0.0/8"))
}

/// `host:port` or `[address]:port`, as Go's `net.SplitHostPort` takes them apart.
pub(crate) fn split_host_port(text: &str) -> Option<(&str, &str)> {
    let (host, port) = text.rsplit_once(':')?;
    let host = match host.strip_prefix('[') {
        Some(bracketed) => bracketed.strip_suffix(']')?,
        None if host.contains(':') => return None,
        None => host,
    };
    (!host.contains(['[', ']']) && !port.contains(['[', ']'])).then_some((host, port))
}

/// `host:port` of something to connect to.
pub(crate) fn host_port(text: &str) -> Verdict {
    let Some((host, number)) = split_host_port(text) else {
        return Err(Problem::new(format!("`{text}` is not a host and a port")).hint("write `HOST:PORT`"));
    };
    match number.parse::<i64>() {
        Ok(number) => port(number)?,
        Err(_) => return Err(format!("`{number}` is not the number of a port").into()),
    }
    if ip_address(host).is_ok() { Ok(()) } else { fqdn(host) }
}

/// What an address of a Unix socket begins with.
pub(crate) const UNIX: &str = "unix://";

/// The path of a Unix socket, without `unix://`; `@` begins a name that is not in the file system.
pub(crate) fn unix_path(path: &str) -> Verdict {
    if path.is_empty() {
        return Err(Problem::new("the path of the Unix socket is missing").hint("write `unix:///path/to/socket`"));
    }
    if path.starts_with('@') || (path.starts_with('/') && !path.ends_with('/')) {
        return Ok(());
    }
    Err(Problem::new(format!("`{path}` is not an absolute path to a file"))
        .hint("write `unix:///path/to/socket`, or `unix://@name` for an abstract socket"))
}
