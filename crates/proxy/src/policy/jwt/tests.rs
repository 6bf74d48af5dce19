//! Tokens good and bad, and what requirements make of them.

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair, RSA_PKCS1_SHA256, RSA_PKCS1_SHA512,
    RSA_PSS_SHA256, RsaKeyPair,
};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use maille_http::{Name, RequestHead};
use serde_json::{Value, json};

use super::*;
use crate::config::{Conditions, JwtFilter, JwtProvider, JwtRule, PathMatcher, Requirement, RouteMatcher};

const NOW: u64 = 1_800_000_000;

struct Signers {
    rsa: RsaKeyPair,
    ec: EcdsaKeyPair,
    ed: Ed25519KeyPair,
}

static SIGNERS: LazyLock<Signers> = LazyLock::new(|| Signers {
    rsa: RsaKeyPair::generate(KeySize::Rsa2048).unwrap(),
    ec: EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap(),
    ed: Ed25519KeyPair::generate().unwrap(),
});

fn b64(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

fn jwks() -> String {
    let public = SIGNERS.rsa.public_key();
    let point = SIGNERS.ec.public_key().as_ref();
    json!({"keys": [
        {"kty": "RSA", "kid": "r", "n": b64(public.modulus().big_endian_without_leading_zero()),
         "e": b64(public.exponent().big_endian_without_leading_zero())},
        {"kty": "EC", "kid": "e", "alg": "ES256", "crv": "P-256", "x": b64(&point[1..33]), "y": b64(&point[33..])},
        {"kty": "OKP", "kid": "o", "crv": "Ed25519", "x": b64(SIGNERS.ed.public_key().as_ref())},
        {"kty": "oct", "kid": "h", "k": b64("a secret")},
        {"kty": "PQ", "kid": "unknown kinds are passed over"},
    ]})
    .to_string()
}

fn sign(header: Value, payload: Value) -> String {
    let message = format!("{}.{}", b64(header.to_string()), b64(payload.to_string()));
    let random = SystemRandom::new();
    let rsa = |padding| {
        let mut out = vec![0; SIGNERS.rsa.public_modulus_len()];
        SIGNERS.rsa.sign(padding, &random, message.as_bytes(), &mut out).unwrap();
        out
    };
    let signature = match header["alg"].as_str().unwrap_or_default() {
        "RS256" => rsa(&RSA_PKCS1_SHA256),
        "RS512" => rsa(&RSA_PKCS1_SHA512),
        "PS256" => rsa(&RSA_PSS_SHA256),
        "ES256" => SIGNERS.ec.sign(&random, message.as_bytes()).unwrap().as_ref().to_vec(),
        "EdDSA" => SIGNERS.ed.sign(message.as_bytes()).as_ref().to_vec(),
        "HS256" => {
            let secret = header["secret"].as_str().unwrap_or("a secret");
            let key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, secret.as_bytes());
            aws_lc_rs::hmac::sign(&key, message.as_bytes()).as_ref().to_vec()
        }
        _ => b"none".to_vec(),
    };
    format!("{message}.{}", b64(signature))
}

fn provider(issuer: &str) -> JwtProvider {
    let headers = [(Name::new("authorization"), "Bearer ".into()), (Name::new("x-token"), "".into())];
    let looks = Looks { issuer, headers: &headers, params: &["token".into()], cookies: &["session".into()] };
    JwtProvider {
        name: issuer.into(),
        issuer: issuer.into(),
        audiences: Vec::new(),
        subject: None,
        require_expiration: false,
        max_lifetime: None,
        forward: false,
        places: Places::of([looks]),
        payload_header: None,
        payload_in_metadata: "payload".into(),
        header_in_metadata: "".into(),
        failure_in_metadata: "".into(),
        space_delimited: vec!["scope".into()],
        clock_skew: 60,
        claim_headers: vec![
            (vec!["sub".into()], Name::new("x-sub")),
            (vec!["a".into(), "b".into()], Name::new("x-ab")),
        ],
        clear_route: false,
        keys: Some(Arc::new(Keys::parse(&jwks()).unwrap())),
    }
}

fn filter(requires: Requirement) -> JwtFilter {
    let providers = vec![provider("https://a"), provider("https://b")];
    let headers = [(Name::new("authorization"), "Bearer ".into()), (Name::new("x-token"), "".into())];
    let looks = |issuer| Looks { issuer, headers: &headers, params: &[], cookies: &[] };
    let matcher =
        RouteMatcher::new(PathMatcher::Prefix(b"/"[..].into(), crate::config::Case::Sensitive), Conditions::default());
    JwtFilter {
        places: Places::of([looks("https://a"), looks("https://b")]),
        providers,
        rules: vec![JwtRule { matcher, requires: Some(requires) }],
        bypass_cors_preflight: true,
        strip_failure_response: false,
        stat_prefix: "".into(),
    }
}

fn judge(filter: &JwtFilter, path: &str, headers: &[(&str, &str)]) -> (RequestHead, Granted, Result<(), Status>) {
    let mut head = RequestHead::build("GET", "host", path, headers);
    let (granted, result) = filter.judge(&mut head, 0, Duration::from_secs(NOW));
    (head, granted, result)
}

fn one() -> Requirement {
    Requirement::Provider(0, None)
}

#[test]
fn row_28_a_token_that_was_good_is_judged_anew() {
    let token = sign(json!({"alg": "RS256", "kid": "r"}), json!({"iss": "https://a", "exp": NOW + 10}));
    let mut filter = filter(one());
    let judge_at = |filter: &JwtFilter, now| {
        let mut head = RequestHead::build("GET", "host", "/", &[("x-token", &token)]);
        filter.judge(&mut head, 0, Duration::from_secs(now)).1
    };
    assert_eq!([judge_at(&filter, NOW), judge_at(&filter, NOW)], [Ok(()), Ok(())]);
    assert_eq!(judge_at(&filter, NOW + 71), Err(Status::Expired));
    // The issuer's keys have been replaced.
    let mut others: Value = serde_json::from_str(&jwks()).unwrap();
    others["keys"].as_array_mut().unwrap().remove(0);
    filter.providers[0].keys = Some(Arc::new(Keys::parse(&others.to_string()).unwrap()));
    assert_eq!(judge_at(&filter, NOW), Err(Status::NoMatchingKey));
}

#[test]
fn row_28_what_a_token_must_be() {
    let rs = |payload: Value| sign(json!({"alg": "RS256", "kid": "r"}), payload);
    let header = |header: Value| sign(header, json!({"iss": "https://a"}));
    let good = rs(json!({"iss": "https://a"}));
    let cut = |n: usize| good[..good.len() - n].to_owned();
    let sections: Vec<&str> = good.split('.').collect();
    let modulus = SIGNERS.rsa.public_key().as_ref().iter().map(|b| format!("{b:02x}")).collect::<String>();
    let huge = format!("{}.{}.{}", sections[0], "A".repeat(MAX_TOKEN), sections[2]);
    let cases: Vec<(&str, String, Result<(), Status>)> = vec![
        ("RS256", good.clone(), Ok(())),
        ("RS512", header(json!({"alg": "RS512", "kid": "r"})), Ok(())),
        ("PS256", header(json!({"alg": "PS256"})), Ok(())),
        ("ES256", header(json!({"alg": "ES256", "kid": "e"})), Ok(())),
        ("EdDSA", header(json!({"alg": "EdDSA"})), Ok(())),
        ("HS256 of an oct key", header(json!({"alg": "HS256", "kid": "h"})), Ok(())),
        // Every key is tried that may be meant, and this one says what is wrong whatever comes behind it (Envoy: verify.cc).
        ("HS256 before an Ed25519 key", header(json!({"alg": "HS256"})), Err(Status::Ed25519WrongLength)),
        ("alg none", header(json!({"alg": "none"})), Err(Status::HeaderUnknownAlg)),
        ("alg None", header(json!({"alg": "None"})), Err(Status::HeaderUnknownAlg)),
        ("no alg", header(json!({"kid": "r"})), Err(Status::HeaderBadAlg)),
        ("alg a number", header(json!({"alg": 1})), Err(Status::HeaderBadAlg)),
        (
            "an RSA key as HMAC secret",
            header(json!({"alg": "HS256", "kid": "r", "secret": modulus})),
            Err(Status::VerificationFails),
        ),
        (
            "the wrong secret",
            header(json!({"alg": "HS256", "kid": "h", "secret": "x"})),
            Err(Status::VerificationFails),
        ),
        ("kid of another key", header(json!({"alg": "RS256", "kid": "e"})), Err(Status::NoMatchingKey)),
        ("kid that nobody has", header(json!({"alg": "RS256", "kid": "../../etc/passwd"})), Err(Status::NoMatchingKey)),
        ("kid a number", header(json!({"alg": "RS256", "kid": 7})), Err(Status::HeaderBadKid)),
        ("expired", rs(json!({"iss": "https://a", "exp": NOW - 61})), Err(Status::Expired)),
        ("expired within the skew", rs(json!({"iss": "https://a", "exp": NOW - 60})), Ok(())),
        ("exp in text", rs(json!({"iss": "https://a", "exp": "never"})), Err(Status::ExpNotInteger)),
        ("exp negative", rs(json!({"iss": "https://a", "exp": -1})), Err(Status::ExpOutOfRange)),
        ("exp zero is none", rs(json!({"iss": "https://a", "exp": 0})), Ok(())),
        ("exp beyond counting", rs(json!({"iss": "https://a", "exp": 1e30})), Err(Status::ExpOutOfRange)),
        ("not yet valid", rs(json!({"iss": "https://a", "nbf": NOW + 61})), Err(Status::NotYetValid)),
        ("nbf within the skew", rs(json!({"iss": "https://a", "nbf": NOW + 60})), Ok(())),
        ("iat a list", rs(json!({"iss": "https://a", "iat": []})), Err(Status::IatNotInteger)),
        ("wrong issuer", rs(json!({"iss": "https://evil"})), Err(Status::UnknownIssuer)),
        ("no issuer", rs(json!({})), Err(Status::UnknownIssuer)),
        (
            "iss twice",
            sign(json!({"alg": "RS256", "kid": "r"}), Value::Null)
                .split('.')
                .enumerate()
                .map(
                    |(i, part)| {
                        if i == 1 { b64(r#"{"iss":"https://evil","iss":"https://a"}"#) } else { part.to_owned() }
                    },
                )
                .collect::<Vec<_>>()
                .join("."),
            Err(Status::PayloadBadJson),
        ),
        ("iss a number", rs(json!({"iss": 1})), Err(Status::IssNotString)),
        ("sub a map", rs(json!({"iss": "https://a", "sub": {}})), Err(Status::SubNotString)),
        ("aud mixed", rs(json!({"iss": "https://a", "aud": ["x", 1]})), Err(Status::AudNotString)),
        ("jti a number", rs(json!({"iss": "https://a", "jti": 1})), Err(Status::JtiNotString)),
        ("two sections", sections[..2].join("."), Err(Status::BadFormat)),
        ("four sections", format!("{good}.x"), Err(Status::BadFormat)),
        ("empty", String::new(), Err(Status::BadFormat)),
        ("header no base64", format!("!!.{}.{}", sections[1], sections[2]), Err(Status::HeaderBadBase64)),
        ("header no JSON", format!("{}.{}.{}", b64("{"), sections[1], sections[2]), Err(Status::HeaderBadJson)),
        ("header a list", format!("{}.{}.{}", b64("[]"), sections[1], sections[2]), Err(Status::HeaderBadJson)),
        ("payload no base64", format!("{}.!!.{}", sections[0], sections[2]), Err(Status::PayloadBadBase64)),
        ("payload no JSON", format!("{}.{}.{}", sections[0], b64("no"), sections[2]), Err(Status::PayloadBadJson)),
        ("signature no base64", format!("{}.{}.!!", sections[0], sections[1]), Err(Status::SignatureBadBase64)),
        ("another word before it", format!("Toke {good}"), Err(Status::HeaderBadJson)),
        ("signature cut", cut(4), Err(Status::VerificationFails)),
        ("no signature", format!("{}.{}.", sections[0], sections[1]), Err(Status::BadFormat)),
        (
            "another payload under the signature",
            format!("{}.{}.{}", sections[0], b64(r#"{"iss":"https://a","sub":"root"}"#), sections[2]),
            Err(Status::VerificationFails),
        ),
        (
            "Ed25519 signature too short",
            format!("{}.{}.{}", b64(r#"{"alg":"EdDSA","kid":"o"}"#), b64(r#"{"iss":"https://a"}"#), b64("short")),
            Err(Status::Ed25519WrongLength),
        ),
        ("padded sections", good.split('.').map(|s| s.to_owned()).collect::<Vec<_>>().join("."), Ok(())),
        ("huge", huge, Err(Status::BadFormat)),
    ];
    let filter = filter(one());
    for (name, token, expected) in cases {
        let (.., result) = judge(&filter, "/", &[("x-token", &token)]);
        assert_eq!(result, expected, "{name}");
    }
}

#[test]
fn where_tokens_stand() {
    let good = sign(json!({"alg": "ES256"}), json!({"iss": "https://a"}));
    let bad = sign(json!({"alg": "ES256"}), json!({"iss": "https://a", "exp": 1}));
    let bearer = format!("Bearer {good}");
    let filter = filter(one());
    let cookie = format!("x=1; session={good}");
    let query = format!("/?a=1&token={good}");
    type Case<'a> = (&'a str, &'a str, Vec<(&'a str, &'a str)>, Result<(), Status>);
    let cases: Vec<Case<'_>> = vec![
        ("nowhere", "/", vec![], Err(Status::Missing)),
        ("another scheme", "/", vec![("authorization", "Basic x")], Err(Status::Missing)),
        ("header", "/", vec![("authorization", &bearer)], Ok(())),
        ("header without prefix", "/", vec![("x-token", &good)], Ok(())),
        ("query", &query, vec![], Ok(())),
        ("cookie", "/", vec![("cookie", &cookie)], Ok(())),
        ("two, both good", "/", vec![("authorization", &bearer), ("x-token", &good)], Ok(())),
        ("a good one hides no bad one", "/", vec![("authorization", &bearer), ("x-token", &bad)], Err(Status::Expired)),
        ("nor the other way", &query, vec![("x-token", &bad)], Err(Status::Expired)),
        ("two in one header's lines", "/", vec![("x-token", &good), ("x-token", &bad)], Err(Status::Expired)),
    ];
    for (name, path, headers, expected) in cases {
        assert_eq!(judge(&filter, path, &headers).2, expected, "{name}");
    }
}

#[test]
fn what_a_good_token_does() {
    let payload = json!({"iss": "https://a", "sub": "ann", "a": {"b": [1]}, "scope": "read write"});
    let token = sign(json!({"alg": "ES256"}), payload);
    let mut filter = filter(one());
    filter.providers[0].payload_header = Some((Name::new("x-payload"), true));
    filter.providers[0].clear_route = true;
    for (claim, header) in [
        (json!("ann"), Some("ann")),
        (json!(true), Some("true")),
        (json!(3), Some("3")),
        (json!(1.5), Some("1.500000")),
        (json!(-7), Some("-7.000000")),
        (json!(1e19), Some("10000000000000000000")),
        (json!(1e20), Some("100000000000000000000.000000")),
        (json!(""), None),
        (json!(null), None),
    ] {
        let token = sign(json!({"alg": "ES256"}), json!({"iss": "https://a", "a": {"b": claim}}));
        let (head, _, result) = judge(&filter, "/", &[("authorization", &format!("Bearer {token}"))]);
        assert_eq!(result, Ok(()));
        assert_eq!(head.header(&Name::new("x-ab")).as_deref(), header.map(str::as_bytes), "{claim}");
    }
    let broken = sign(json!({"alg": "ES256"}), json!({"iss": "https://a", "sub": "ann\r\nx-admin: 1"}));
    let result = judge(&filter, "/", &[("authorization", &format!("Bearer {broken}"))]).2;
    assert_eq!(result, Err(Status::ClaimNotSendable), "a header carries no line breaks");
    let spoofed = [("x-sub", "root"), ("x-payload", "forged")];
    let bearer = format!("Bearer {token}");
    let (head, granted, result) = judge(&filter, "/", &[&spoofed[..], &[("authorization", &bearer)]].concat());
    assert_eq!(result, Ok(()));
    let get = |name: &str| head.header(&Name::new(name)).map(|v| String::from_utf8_lossy(&v).into_owned());
    assert_eq!(get("authorization"), None, "it is not forwarded");
    assert_eq!(get("x-sub").as_deref(), Some("ann"));
    assert_eq!(get("x-ab").as_deref(), Some("WzFd"), "lists go on in base64");
    assert_eq!(get("x-payload").unwrap().len() % 4, 0);
    assert_eq!(granted.metadata["payload"]["scope"], json!(["read", "write"]));
    assert!(granted.clear_route);
    let (head, _, result) = judge(&filter, "/", &spoofed);
    assert_eq!(result, Err(Status::Missing));
    assert!(head.header(&Name::new("x-sub")).is_none(), "what only we may say is taken away");
}

#[test]
fn requirements() {
    let token = |issuer: &str, more: Value| {
        let mut payload = json!({"iss": issuer});
        payload.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        format!("Bearer {}", sign(json!({"alg": "ES256"}), payload))
    };
    let a = token("https://a", json!({}));
    let a_for = token("https://a", json!({"aud": "https://shop/"}));
    let b = token("https://b", json!({}));
    let bad = token("https://b", json!({"exp": 1}));
    let any = |allow_missing, allow_failed| Requirement::Any {
        of: vec![Requirement::Provider(0, None), Requirement::Provider(1, None)],
        allow_missing,
        allow_failed,
    };
    let meant = || Requirement::Provider(0, Some(vec!["shop".into()]));
    let none = "";
    for (name, requirement, token, expected) in [
        ("either: a", any(false, false), &a[..], Ok(())),
        ("either: b", any(false, false), &b, Ok(())),
        ("either: bad", any(false, false), &bad, Err(Status::Expired)),
        ("either: none", any(false, false), none, Err(Status::Missing)),
        ("either or none: none", any(true, false), none, Ok(())),
        ("either or none: bad", any(true, false), &bad, Err(Status::Expired)),
        ("anything: bad", any(false, true), &bad, Ok(())),
        (
            "all: a",
            Requirement::All(vec![Requirement::Provider(0, None), Requirement::Provider(1, None)]),
            &a,
            Err(Status::Missing),
        ),
        ("optional: none", Requirement::AllowMissing, none, Ok(())),
        ("optional: b", Requirement::AllowMissing, &b, Ok(())),
        ("optional: bad", Requirement::AllowMissing, &bad, Err(Status::Expired)),
        ("whatever: bad", Requirement::AllowFailed, &bad, Ok(())),
        ("meant for us", meant(), &a_for, Ok(())),
        ("meant for nobody", meant(), &a, Err(Status::AudienceNotAllowed)),
    ] {
        let filter = filter(requirement);
        let headers = if token.is_empty() { vec![] } else { vec![("authorization", token)] };
        assert_eq!(judge(&filter, "/", &headers).2, expected, "{name}");
    }
}

#[test]
fn without_keys_nothing_is_good() {
    let token = format!("Bearer {}", sign(json!({"alg": "ES256"}), json!({"iss": "https://a"})));
    let mut filter = filter(one());
    filter.providers[0].keys = None;
    assert_eq!(judge(&filter, "/", &[("authorization", &token)]).2, Err(Status::NoValidKeys));
}

#[test]
fn key_sets() {
    for (json, good) in [
        (jwks(), true),
        ("{".into(), false),
        (r#"{"keys": {}}"#.into(), false),
        (r#"{"keys": []}"#.into(), false),
        (r#"{"keys": [{"kty": "RSA", "n": "AQAB", "e": "AQ"}]}"#.into(), false),
        (r#"{"keys": [{"kty": "EC", "alg": "ES384", "crv": "P-256", "x": "AQ", "y": "AQ"}]}"#.into(), false),
        (r#"{"keys": [{"kty": "oct", "k": ""}]}"#.into(), false),
    ] {
        assert_eq!(Keys::parse(&json).is_ok(), good, "{json}");
    }
    let shown = format!("{:?}", Keys::parse(&jwks()).unwrap());
    assert!(!shown.contains("secret") && !shown.contains("97"), "keys are not printed: {shown}");
}
