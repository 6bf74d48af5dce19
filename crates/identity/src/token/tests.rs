//! Tokens that are good, and every way in which one is not.

use serde_json::{Value, json};

use super::*;

const NOW: SystemTime = SystemTime::UNIX_EPOCH;

fn at(seconds: u64) -> SystemTime {
    NOW + Duration::from_secs(seconds)
}

fn key() -> TokenKey {
    TokenKey::read(&TokenKey::generate().unwrap()).unwrap()
}

fn id() -> SpiffeId {
    "spiffe://cluster.local/ns/shop/sa/web".parse().unwrap()
}

fn claims() -> Value {
    json!({
        "iss": "spiffe://cluster.local/ns/istio-system/sa/istiod", "sub": "system:serviceaccount:shop:web",
        "aud": ["istio-ca"], "exp": 2000, "nbf": 1000, "iat": 1000,
    })
}

fn with(change: Value) -> Value {
    let mut claims = claims();
    for (name, value) in change.as_object().unwrap() {
        claims[name] = value.clone();
    }
    claims
}

/// Signed by the key, whatever it says.
fn signed(key: &TokenKey, header: &Value, claims: &Value) -> String {
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let text = format!("{}.{}", part(header), part(claims));
    let signature = key.pair.sign(&SystemRandom::new(), text.as_bytes()).unwrap();
    format!("{text}.{}", URL_SAFE_NO_PAD.encode(signature))
}

#[test]
fn a_token_of_ours_says_whose_it_is_until_it_ends() {
    let key = key();
    let token = key.mint(&id(), Duration::from_secs(60), at(1000)).unwrap();
    let verify = |seconds| key.verify(&token, &TrustDomain::default(), at(seconds));
    for good in [940, 1000, 1059] {
        assert_eq!(verify(good), Ok(id()), "{good}");
    }
    assert_eq!(verify(1060), Err(TokenError::Expired));
    assert_eq!(verify(939), Err(TokenError::NotYet));
    assert_eq!(key.verify(&token, &"other.example".parse().unwrap(), at(1000)), Err(TokenError::Signature));
    assert_eq!(key.mint(&id(), MAX_TTL + Duration::from_secs(1), at(0)), Err(TokenError::TooLongALife));
}

#[test]
fn what_proves_nothing_is_refused_for_its_reason() {
    let (key, other) = (key(), key_of_another());
    let header = json!({"alg": "ES256", "kid": key.id});
    let good = signed(&key, &header, &claims());
    let (text, signature) = good.rsplit_once('.').unwrap();
    let (head, body) = text.split_once('.').unwrap();
    let none = URL_SAFE_NO_PAD.encode(json!({"alg": "none"}).to_string());
    let flipped = {
        let mut bytes = URL_SAFE_NO_PAD.decode(signature).unwrap();
        bytes[10] ^= 1;
        URL_SAFE_NO_PAD.encode(bytes)
    };
    let zero = URL_SAFE_NO_PAD.encode([0; 64]);
    let other_body =
        URL_SAFE_NO_PAD.encode(with(json!({"sub": "system:serviceaccount:istio-system:istiod"})).to_string());
    let sign = |change: Value| signed(&key, &header, &with(change));
    let table: Vec<(&str, String, TokenError)> = vec![
        ("nothing", String::new(), TokenError::Malformed),
        ("one part", "abc".into(), TokenError::Malformed),
        ("two parts", "e30.e30".into(), TokenError::Malformed),
        ("four parts", format!("{good}.e30"), TokenError::Malformed),
        ("dots", "..".into(), TokenError::Malformed),
        ("padding", format!("{good}="), TokenError::Malformed),
        ("not base64", format!("{text}.***"), TokenError::Malformed),
        ("a header that is no JSON", format!("YWJj.{body}.{signature}"), TokenError::Malformed),
        ("huge", format!("{text}.{}", "A".repeat(MAX_TOKEN)), TokenError::TooLong),
        ("alg none", format!("{none}.{body}."), TokenError::Algorithm),
        ("alg none with a signature", format!("{none}.{body}.{signature}"), TokenError::Algorithm),
        ("alg None", signed(&key, &json!({"alg": "None", "kid": key.id}), &claims()), TokenError::Algorithm),
        ("alg HS256", signed(&key, &json!({"alg": "HS256", "kid": key.id}), &claims()), TokenError::Algorithm),
        ("alg RS256", signed(&key, &json!({"alg": "RS256", "kid": key.id}), &claims()), TokenError::Algorithm),
        (
            "critical extensions",
            signed(&key, &json!({"alg": "ES256", "kid": key.id, "crit": ["b64"]}), &claims()),
            TokenError::Algorithm,
        ),
        ("no signature", format!("{text}."), TokenError::Signature),
        ("a signature of zeros", format!("{text}.{zero}"), TokenError::Signature),
        ("one bit", format!("{text}.{flipped}"), TokenError::Signature),
        ("other claims", format!("{head}.{other_body}.{signature}"), TokenError::Signature),
        ("another key", signed(&other, &header, &claims()), TokenError::Signature),
        ("a key id of another", signed(&key, &json!({"alg": "ES256", "kid": "x"}), &claims()), TokenError::Signature),
        ("no key id", signed(&key, &json!({"alg": "ES256"}), &claims()), TokenError::Signature),
        ("another issuer", sign(json!({"iss": "kubernetes/serviceaccount"})), TokenError::Signature),
        ("another audience", sign(json!({"aud": ["vault"]})), TokenError::Audience),
        ("no audience", sign(json!({"aud": []})), TokenError::Audience),
        ("an audience that begins so", sign(json!({"aud": "istio-ca2"})), TokenError::Audience),
        ("over", sign(json!({"exp": 1500})), TokenError::Expired),
        ("no end", sign(json!({"exp": null})), TokenError::Malformed),
        ("an end before the beginning of time", sign(json!({"exp": -1})), TokenError::Malformed),
        ("not yet", sign(json!({"nbf": 1561})), TokenError::NotYet),
        ("of a user", sign(json!({"sub": "admin"})), TokenError::Subject),
        ("of an account with a path", sign(json!({"sub": "system:serviceaccount:shop:a/b"})), TokenError::Subject),
        ("of two accounts", sign(json!({"sub": "system:serviceaccount:shop:web:db"})), TokenError::Subject),
        ("of an account without a name", sign(json!({"sub": "system:serviceaccount:shop:"})), TokenError::Subject),
    ];
    assert_eq!(key.verify(&good, &TrustDomain::default(), at(1500)), Ok(id()));
    assert_eq!(key.verify(&sign(json!({"aud": "istio-ca"})), &TrustDomain::default(), at(1500)), Ok(id()));
    for (what, token, reason) in table {
        assert_eq!(key.verify(&token, &TrustDomain::default(), at(1500)), Err(reason), "{what}: {token}");
    }
}

#[test]
fn no_cut_of_a_token_is_one() {
    let key = key();
    let token = key.mint(&id(), Duration::from_secs(60), at(1000)).unwrap();
    for end in 0..token.len() {
        assert!(key.verify(&token[..end], &TrustDomain::default(), at(1000)).is_err(), "{end}");
    }
}

#[test]
fn the_key_is_not_printed() {
    let pkcs8 = TokenKey::generate().unwrap();
    let printed = format!("{:?}", TokenKey::read(&pkcs8).unwrap());
    assert!(printed.starts_with("TokenKey { id: ") && printed.ends_with(", .. }"), "{printed}");
}

fn key_of_another() -> TokenKey {
    key()
}
