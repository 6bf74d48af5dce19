//! The first message of a TLS connection, read without being answered: which name the client asks for, and which protocols
//! it offers.

use crate::cursor::Cursor;

/// No ClientHello that is read is longer, with the heads of its records.
pub const MAX: usize = 16 * 1024;

/// What a ClientHello says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClientHello {
    /// The name in lower case; empty is none.
    pub server_name: String,
    /// The protocols, best first.
    pub alpn: Vec<String>,
}

/// What the first bytes of a connection are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Parsed {
    /// Not enough to tell.
    More,
    /// No ClientHello.
    Other,
    /// A ClientHello.
    Hello(ClientHello),
}

/// Reads the ClientHello at the front of a connection. One that is longer than [`MAX`] is none.
pub fn parse(bytes: &[u8]) -> Parsed {
    let limited = bytes.get(..MAX).unwrap_or(bytes);
    match records(limited) {
        Parsed::More if bytes.len() >= MAX => Parsed::Other,
        parsed => parsed,
    }
}

/// Puts the message together from as many records as it comes in.
fn records(bytes: &[u8]) -> Parsed {
    let mut message = Vec::new();
    let mut rest = Cursor(bytes);
    loop {
        // A handshake of TLS 1.x, whatever x is said to be: it is agreed on inside.
        match rest.0 {
            [] => return Parsed::More,
            [kind, ..] if *kind != 22 => return Parsed::Other,
            [_, major, ..] if *major != 3 => return Parsed::Other,
            _ => {}
        }
        let (Some(_), Some(len)) = (rest.take(3), rest.u16()) else { return Parsed::More };
        if len == 0 || len > 1 << 14 {
            return Parsed::Other;
        }
        let whole = rest.take(len.into());
        message.extend_from_slice(whole.unwrap_or(rest.0));
        match handshake(&message) {
            Parsed::More if whole.is_some() => {}
            parsed => return parsed,
        }
    }
}

fn handshake(message: &[u8]) -> Parsed {
    let mut rest = Cursor(message);
    match rest.u8() {
        None => return Parsed::More,
        Some(1) => {}
        Some(_) => return Parsed::Other,
    }
    let Some(len) = rest.u24() else { return Parsed::More };
    if len > MAX {
        return Parsed::Other;
    }
    match rest.take(len) {
        None => Parsed::More,
        Some(body) => hello(body).map_or(Parsed::Other, Parsed::Hello),
    }
}

fn hello(body: &[u8]) -> Option<ClientHello> {
    let mut rest = Cursor(body);
    // Version and random number.
    rest.take(2 + 32)?;
    let session = rest.short()?;
    let (suites, compression) = (rest.long()?, rest.short()?);
    if session.len() > 32 || suites.is_empty() || suites.len() % 2 != 0 || compression.is_empty() {
        return None;
    }
    let mut out = ClientHello::default();
    if rest.0.is_empty() {
        return Some(out);
    }
    let mut extensions = Cursor(rest.long()?);
    if !rest.0.is_empty() {
        return None;
    }
    let (mut named, mut offered) = (false, false);
    while !extensions.0.is_empty() {
        let (kind, data) = (extensions.u16()?, extensions.long()?);
        match kind {
            // What is said twice could be read either way.
            0 if named => return None,
            16 if offered => return None,
            0 => {
                named = true;
                out.server_name = server_name(data)?;
            }
            16 => {
                offered = true;
                out.alpn = protocols(data)?;
            }
            _ => {}
        }
    }
    Some(out)
}

fn server_name(data: &[u8]) -> Option<String> {
    let mut rest = Cursor(data);
    let mut names = Cursor(rest.long()?);
    let (kind, name) = (names.u8()?, names.long()?);
    // One name, and it is a host's: there never was another sort.
    if kind != 0 || !names.0.is_empty() || !rest.0.is_empty() || name.is_empty() || name.len() > 255 {
        return None;
    }
    let allowed = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b':');
    if !name.iter().all(allowed) {
        return None;
    }
    Some(std::str::from_utf8(name).ok()?.to_ascii_lowercase())
}

fn protocols(data: &[u8]) -> Option<Vec<String>> {
    let mut rest = Cursor(data);
    let mut list = Cursor(rest.long()?);
    let mut out = Vec::new();
    while !list.0.is_empty() {
        let name = list.short().filter(|name| !name.is_empty())?;
        out.push(String::from_utf8_lossy(name).into_owned());
    }
    (rest.0.is_empty() && !out.is_empty()).then_some(out)
}

#[cfg(test)]
mod tests;
