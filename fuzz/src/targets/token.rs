//! Tokens: our own are good only as they were minted; those of others are taken apart as their text says.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use maille_identity::TrustDomain;
use maille_identity::token::TokenKey;
use maille_proxy::policy::jwt::{Keys, Token};

use super::{Answer, ensure};

/// What tokens and keys are made of.
pub(super) const WORDS: &[&[u8]] = &[
    b".",
    b"..",
    b"=",
    b"==",
    b" ",
    b"\n",
    b"{",
    b"}",
    b"[",
    b"]",
    b"\"",
    b"\\u0000",
    b"null",
    b"1e999",
    b"-1",
    b"1.5",
    b"\"alg\":",
    b"\"none\"",
    b"\"HS256\"",
    b"\"RS256\"",
    b"\"ES256\"",
    b"\"EdDSA\"",
    b"\"kid\":",
    b"\"crit\":[]",
    b"\"aud\":",
    b"\"exp\":",
    b"\"keys\":",
    b"\"kty\":",
    b"\"oct\"",
    b"\"RSA\"",
    b"\"EC\"",
    b"\"OKP\"",
    b"\"crv\":",
    b"\"P-256\"",
    b"\"AQAB\"",
    b",",
    b"eyJhbGciOiJub25lIn0",
];

/// The one token that the corpus has of this key, which is nobody's: its number is 1, 1, 1, ….
const MINTED: &str = include_str!("../../corpus/token/minted");

/// One of ours: nothing but the one that was minted is good.
pub(super) fn own(input: &[u8]) -> Answer {
    let Ok(text) = std::str::from_utf8(input) else { return Ok("no text".into()) };
    thread_local! {
        static KEY: TokenKey = key();
    }
    let verified = KEY.with(|key| key.verify(text, &TrustDomain::default(), now()));
    match verified {
        Ok(id) => {
            let signed = |token: &str| token.rsplit_once('.').map(|(signed, _)| signed.to_owned());
            let fine = signed(text) == signed(MINTED) && id.to_string() == "spiffe://cluster.local/ns/default/sa/web";
            ensure(fine, || format!("good for {id}, but never minted"))?;
            Ok("good".into())
        }
        Err(why) => {
            ensure(text != MINTED, || format!("what was minted is refused: {why}"))?;
            Ok(format!("{why:?}"))
        }
    }
}

/// PKCS #8 of the key on P-256 whose secret number is 32 times the byte 1.
fn key() -> TokenKey {
    let mut pkcs8 = b"\x30\x41\x02\x01\0\x30\x13\x06\x07\x2a\x86\x48\xce\x3d\x02\x01\x06\x08\x2a\x86\x48\xce\x3d\x03\x01\x07\x04\x27".to_vec();
    pkcs8.extend_from_slice(b"\x30\x25\x02\x01\x01\x04\x20");
    pkcs8.extend_from_slice(&[1; 32]);
    TokenKey::read(&pkcs8).unwrap_or_else(|error| panic!("the key of the corpus: {error}"))
}

/// When the token of the corpus is good.
fn now() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(1_700_000_000)
}

/// Somebody else's: what is taken has three parts, an algorithm, and JSON.
pub(super) fn jwt(input: &[u8]) -> Answer {
    let mut kind = String::new();
    // As it stands, and, so that what is inside is mutated as well, as a header and a payload that are not encoded yet.
    let plain = String::from_utf8_lossy(input);
    let (header, payload) = plain.split_once('\n').unwrap_or((&plain, "{}"));
    let encode = |text: &str| base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(text);
    let encoded = format!("{}.{}.c2lnbmF0dXJl", encode(header), encode(payload));
    for text in [&*plain, &encoded] {
        match Token::parse(text) {
            Ok(_) => {
                let sections = text.split('.').filter(|section| !section.is_empty()).count();
                ensure(sections == 3, || format!("taken, with {sections} parts"))?;
                kind += "taken;";
            }
            Err(why) => kind += &format!("{why:?};"),
        }
    }
    if Token::parse(&encoded).is_ok() {
        let algorithm = serde_json::from_str::<serde_json::Value>(header).ok().and_then(|json| {
            let name = json.get("alg")?.as_str()?;
            Some(name != "none" && matches!(name.len(), 5))
        });
        ensure(algorithm == Some(true), || format!("taken, with the header {header:?}"))?;
    }
    Ok(kind)
}

/// A set of keys: none without a kind, and no secret shown.
pub(super) fn keys(input: &[u8]) -> Answer {
    let text = String::from_utf8_lossy(input);
    match Keys::parse(&text) {
        Ok(keys) => {
            let shown = format!("{keys:?}");
            let count = shown.matches("public: ").count();
            let json: serde_json::Value = serde_json::from_str(&text).map_err(|error| format!("taken, but {error}"))?;
            let list = json.get("keys").and_then(|keys| keys.as_array()).ok_or("taken without a list of keys")?;
            ensure(count <= list.len() || list.iter().any(|key| key.to_string().contains("public: ")), || {
                format!("{count} keys out of {}", list.len())
            })?;
            let kinds = ["RSA", "EC", "OKP", "oct"].map(|kind| shown.contains(&format!("public: {kind}")));
            Ok(format!("{count} {kinds:?}"))
        }
        // Where in the text it stops being JSON is not another kind of answer.
        Err(why) => Ok(why.split(" at line").next().unwrap_or_default().into()),
    }
}
