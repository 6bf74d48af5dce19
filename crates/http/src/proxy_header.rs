//! The PROXY protocol: a header before a connection's first byte that says who the client is. Versions 1 and 2.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::cursor::Cursor;

/// How every header of version 2 begins.
const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";

/// The longest header of version 1, with its line end.
const V1_MAX: usize = 107;

/// The longest header of version 2 that is read: addresses, and what else is said about the connection.
pub const V2_MAX: usize = 16 + 4096;

/// A header, read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Its bytes.
    pub len: usize,
    /// Which version it was of.
    pub version: u8,
    /// The client, and where it connected to; `None` when the proxy speaks for itself, or does not know.
    pub client: Option<(SocketAddr, SocketAddr)>,
}

/// What the first bytes of a connection are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parsed {
    /// Not enough to tell.
    More,
    /// No header.
    Absent,
    /// A header.
    Header(Header),
}

/// Why a header is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Malformed {
    /// A line that goes on for too long, or is not as it should be.
    V1,
    /// A header of version 2 with something in it that is not defined.
    V2(&'static str),
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Malformed::V1 => f.write_str("not a PROXY protocol header of version 1"),
            Malformed::V2(why) => write!(f, "not a PROXY protocol header of version 2: {why}"),
        }
    }
}

impl std::error::Error for Malformed {}

/// Reads the header at the front of a connection.
pub fn parse(bytes: &[u8]) -> Result<Parsed, Malformed> {
    let begins = |with: &[u8]| bytes.iter().zip(with).all(|(a, b)| a == b);
    if begins(SIGNATURE) {
        return if bytes.len() < SIGNATURE.len() { Ok(Parsed::More) } else { v2(bytes) };
    }
    if begins(b"PROXY ") {
        return if bytes.len() < 6 { Ok(Parsed::More) } else { v1(bytes) };
    }
    Ok(Parsed::Absent)
}

fn v1(bytes: &[u8]) -> Result<Parsed, Malformed> {
    let Some(end) = bytes.windows(2).take(V1_MAX - 1).position(|two| two == b"\r\n") else {
        return if bytes.len() >= V1_MAX { Err(Malformed::V1) } else { Ok(Parsed::More) };
    };
    let line = bytes.get(..end).and_then(|line| std::str::from_utf8(line).ok()).ok_or(Malformed::V1)?;
    let header = |client| Ok(Parsed::Header(Header { len: end + 2, version: 1, client }));
    let mut words = line.split(' ').skip(1);
    let family = words.next();
    if family == Some("UNKNOWN") {
        // Whatever else it says is to be ignored.
        return header(None);
    }
    let mut word = || words.next().ok_or(Malformed::V1);
    let (source, destination) = (word()?, word()?);
    let (source_port, destination_port) = (port(word()?)?, port(word()?)?);
    if words.next().is_some() {
        return Err(Malformed::V1);
    }
    let (source, destination): (IpAddr, IpAddr) = match family {
        Some("TCP4") => (v4(source)?.into(), v4(destination)?.into()),
        Some("TCP6") => (v6(source)?.into(), v6(destination)?.into()),
        _ => return Err(Malformed::V1),
    };
    if !is_somebody(source) || !is_somebody(destination) {
        return Err(Malformed::V1);
    }
    header(Some((SocketAddr::new(source, source_port), SocketAddr::new(destination, destination_port))))
}

fn v4(text: &str) -> Result<Ipv4Addr, Malformed> {
    text.parse().map_err(|_| Malformed::V1)
}

fn v6(text: &str) -> Result<Ipv6Addr, Malformed> {
    text.parse().map_err(|_| Malformed::V1)
}

fn port(text: &str) -> Result<u16, Malformed> {
    match text.bytes().all(|b| b.is_ascii_digit()) && (text == "0" || !text.starts_with('0')) {
        true => text.parse().map_err(|_| Malformed::V1),
        false => Err(Malformed::V1),
    }
}

fn v2(bytes: &[u8]) -> Result<Parsed, Malformed> {
    let mut cursor = Cursor(bytes);
    let (Some(_), Some(command), Some(family), Some(extra)) =
        (cursor.take(SIGNATURE.len()), cursor.u8(), cursor.u8(), cursor.u16())
    else {
        return Ok(Parsed::More);
    };
    if command >> 4 != 2 {
        return Err(Malformed::V2("its version is not 2"));
    }
    let len = 16 + usize::from(extra);
    if len > V2_MAX {
        return Err(Malformed::V2("it is too long"));
    }
    let header = |client| Ok(Parsed::Header(Header { len, version: 2, client }));
    match command & 15 {
        // The proxy speaks for itself; addresses, if there are any, are nobody's.
        0 if cursor.take(extra.into()).is_some() => return header(None),
        0 => return Ok(Parsed::More),
        1 => {}
        _ => return Err(Malformed::V2("its command is neither LOCAL nor PROXY")),
    }
    let is_v4 = match family >> 4 {
        1 => true,
        2 => false,
        _ => return Err(Malformed::V2("its addresses are neither IPv4 nor IPv6")),
    };
    if !matches!(family & 15, 1 | 2) {
        return Err(Malformed::V2("it is about neither a stream nor datagrams"));
    }
    if extra < if is_v4 { 12 } else { 36 } {
        return Err(Malformed::V2("it is too short for its addresses"));
    }
    let Some(data) = cursor.take(extra.into()) else { return Ok(Parsed::More) };
    let mut data = Cursor(data);
    let client = if is_v4 { addresses::<4>(&mut data) } else { addresses::<16>(&mut data) };
    let client = client.filter(|(from, to)| is_somebody(from.ip()) && is_somebody(to.ip()));
    let client = client.ok_or(Malformed::V2("an address is nobody's"))?;
    // What else is said must be whole, even if nobody asks for it.
    while !data.0.is_empty() {
        let value = data.u8().and_then(|_| data.u16()).and_then(|len| data.take(len.into()));
        value.ok_or(Malformed::V2("what it says in addition is cut off"))?;
    }
    header(Some(client))
}

fn addresses<const N: usize>(data: &mut Cursor<'_>) -> Option<(SocketAddr, SocketAddr)>
where
    IpAddr: From<[u8; N]>,
{
    let from = IpAddr::from(<[u8; N]>::try_from(data.take(N)?).ok()?);
    let to = IpAddr::from(<[u8; N]>::try_from(data.take(N)?).ok()?);
    Some((SocketAddr::new(from, data.u16()?), SocketAddr::new(to, data.u16()?)))
}

/// Whether a connection can come from an address, or go there.
fn is_somebody(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => !ip.is_unspecified() && !ip.is_broadcast() && !ip.is_multicast(),
        IpAddr::V6(ip) => !ip.is_unspecified() && !ip.is_multicast(),
    }
}

/// Writes a header of version 1 about a client; without one, about nobody.
pub fn write_v1(out: &mut Vec<u8>, client: Option<(SocketAddr, SocketAddr)>) {
    let Some((from, to)) = client.map(alike) else {
        out.extend_from_slice(b"PROXY UNKNOWN\r\n");
        return;
    };
    let family = if from.is_ipv4() { "TCP4" } else { "TCP6" };
    let line = format!("PROXY {family} {} {} {} {}\r\n", from.ip(), to.ip(), from.port(), to.port());
    out.extend_from_slice(line.as_bytes());
}

/// Writes a header of version 2 about a client; without one, about the connection itself.
pub fn write_v2(out: &mut Vec<u8>, client: Option<(SocketAddr, SocketAddr)>) {
    out.extend_from_slice(SIGNATURE);
    let Some((from, to)) = client.map(alike) else {
        out.extend_from_slice(&[0x20, 0, 0, 0]);
        return;
    };
    match (from.ip(), to.ip()) {
        (IpAddr::V4(a), IpAddr::V4(b)) => {
            out.extend_from_slice(&[0x21, 0x11, 0, 12]);
            out.extend_from_slice(&a.octets());
            out.extend_from_slice(&b.octets());
        }
        (a, b) => {
            out.extend_from_slice(&[0x21, 0x21, 0, 36]);
            out.extend_from_slice(&v6_of(a).octets());
            out.extend_from_slice(&v6_of(b).octets());
        }
    }
    out.extend_from_slice(&from.port().to_be_bytes());
    out.extend_from_slice(&to.port().to_be_bytes());
}

/// Both of one family.
fn alike((from, to): (SocketAddr, SocketAddr)) -> (SocketAddr, SocketAddr) {
    if from.is_ipv4() == to.is_ipv4() {
        return (from, to);
    }
    let wide = |a: SocketAddr| SocketAddr::new(v6_of(a.ip()).into(), a.port());
    (wide(from), wide(to))
}

fn v6_of(ip: IpAddr) -> Ipv6Addr {
    match ip {
        IpAddr::V4(ip) => ip.to_ipv6_mapped(),
        IpAddr::V6(ip) => ip,
    }
}

#[cfg(test)]
mod tests;
