//! Bodies: the same data, the same end and the same trailers however they are cut, and as a naive reader has it.

use maille_http::Headers;
use maille_http::h1::{BodyDecoder, BodyLength, CHUNK_END, Error, chunk_head, trailer_section};

use super::{Answer, ensure};

/// What chunked bodies are made of.
pub(super) const WORDS: &[&[u8]] = &[
    b"\r\n",
    b"\n",
    b"\r",
    b"0\r\n\r\n",
    b"0\r\n",
    b"5\r\nhello\r\n",
    b"A\r\n0123456789\r\n",
    b"1\r\nx\r\n",
    b"000",
    b";",
    b";a=b",
    b"0x",
    b"+",
    b"-",
    b" ",
    b"\t",
    b"\0",
    b"\x7f",
    b"X-T: 1\r\n",
    b"Content-Length: 9\r\n",
    b"Host: x\r\n",
    b": ",
    b"fffffffffffffff",
];

/// What a body was read as.
#[derive(Debug, PartialEq)]
struct Read {
    data: Vec<u8>,
    consumed: usize,
    done: bool,
    trailers: Option<Result<String, Error>>,
}

/// Reads a body in every framing, whole and cut.
pub(super) fn check(input: &[u8]) -> Answer {
    let mut kind = String::new();
    let half = input.len() as u64 / 2;
    for length in [BodyLength::Chunked, BodyLength::Exact(half), BodyLength::UntilClose, BodyLength::Empty] {
        let whole = read(length, [input].into_iter());
        for cut in [1, 2, 3, 7] {
            same(&whole, &read(length, input.chunks(cut)), || format!("{length:?} in pieces of {cut}"))?;
        }
        let step = 1 + input.len() / 32;
        for cut in (0..input.len()).step_by(step) {
            let (a, b) = input.split_at(cut);
            same(&whole, &read(length, [a, b].into_iter()), || format!("{length:?} cut at {cut}"))?;
        }
        if length == BodyLength::Chunked {
            kind = match whole {
                Ok(read) => {
                    let trailers = read.trailers.as_ref().map(Result::is_ok);
                    if read.done {
                        naive(input, &read)?;
                        written(&read)?;
                    }
                    format!("{} {trailers:?} {}", read.done, read.data.len().min(4))
                }
                Err(error) => format!("{error:?} {}", input.len().min(8)),
            };
        } else {
            let taken = if length == BodyLength::UntilClose { input.len() } else { length_of(length) };
            let fine = whole.as_ref().is_ok_and(|read| read.data == input[..taken] && read.consumed == taken);
            ensure(fine, || format!("{length:?}: {whole:?}"))?;
        }
    }
    Ok(kind)
}

fn length_of(length: BodyLength) -> usize {
    if let BodyLength::Exact(n) = length { n as usize } else { 0 }
}

fn same(a: &Result<Read, Error>, b: &Result<Read, Error>, how: impl FnOnce() -> String) -> Result<(), String> {
    ensure(a == b, || format!("whole {a:?}, {} {b:?}", how()))
}

fn read<'a>(length: BodyLength, pieces: impl Iterator<Item = &'a [u8]>) -> Result<Read, Error> {
    let mut decoder = BodyDecoder::new(length);
    let mut out = Read { data: Vec::new(), consumed: 0, done: decoder.is_done(), trailers: None };
    for piece in pieces {
        let mut piece = piece.to_vec();
        let got = decoder.decode(&mut piece)?;
        assert!(got.data <= got.consumed && got.consumed <= piece.len(), "more than there was: {got:?}");
        out.data.extend_from_slice(&piece[..got.data]);
        out.consumed += got.consumed;
        out.done = got.done;
        if got.done {
            break;
        }
        assert!(got.consumed == piece.len(), "neither done nor all taken: {got:?}");
    }
    out.trailers = decoder.take_trailers().map(|trailers| trailers.map(|fields| text(&fields))).transpose();
    Ok(out)
}

fn text(trailers: &Headers) -> String {
    let mut out = Vec::new();
    trailer_section(&mut out, trailers);
    out.escape_ascii().to_string()
}

/// Reads chunks as one would by hand.
fn naive(input: &[u8], read: &Read) -> Result<(), String> {
    let (mut rest, mut data) = (input, Vec::new());
    loop {
        let end = rest.windows(2).position(|two| two == b"\r\n").ok_or("by hand: a size line without an end")?;
        let digits: String = rest[..end].iter().take_while(|&&b| b != b';').map(|&b| char::from(b)).collect();
        ensure(digits.bytes().all(|b| b.is_ascii_hexdigit()), || format!("by hand: the size {digits:?}"))?;
        let size = usize::from_str_radix(&digits, 16).map_err(|error| format!("by hand: {digits:?}: {error}"))?;
        rest = &rest[end + 2..];
        if size == 0 {
            break;
        }
        ensure(rest.get(size..size + 2) == Some(b"\r\n"), || "by hand: a chunk without an end".into())?;
        data.extend_from_slice(&rest[..size]);
        rest = &rest[size + 2..];
    }
    loop {
        let end = rest.windows(2).position(|two| two == b"\r\n").ok_or("by hand: trailers without an end")?;
        rest = &rest[end + 2..];
        if end == 0 {
            break;
        }
    }
    let consumed = input.len() - rest.len();
    ensure(data == read.data && consumed == read.consumed, || {
        format!("by hand {consumed} bytes hold \"{}\", but {read:?}", data.escape_ascii())
    })
}

/// Written again in one chunk, it is the same body.
fn written(before: &Read) -> Result<(), String> {
    let mut out = Vec::new();
    if !before.data.is_empty() {
        chunk_head(&mut out, before.data.len());
        out.extend_from_slice(&before.data);
        out.extend_from_slice(CHUNK_END);
    }
    out.extend_from_slice(b"0\r\n\r\n");
    let again = read(BodyLength::Chunked, [&out[..]].into_iter());
    let fine = again.as_ref().is_ok_and(|again| again.data == before.data && again.consumed == out.len() && again.done);
    ensure(fine, || format!("{before:?}, written and read again {again:?}"))
}
