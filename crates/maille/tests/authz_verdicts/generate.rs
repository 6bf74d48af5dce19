//! Requests that hit and just miss what policies ask for.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddrV4};

use fastrand::Rng;
use serde_json::{Value, json};

use crate::ask::Ask;
use crate::helpers::TOLD;
use crate::variants::Variant;

/// What a policy for nobody in particular is asked with.
const ANYTHING: [(&str, &str); 8] = [
    ("principals", "cluster.local/ns/foo/sa/bar"),
    ("namespaces", "foo"),
    ("hosts", "shop.example"),
    ("methods", "POST"),
    ("paths", "/admin"),
    ("request.headers[x-any]", "thing"),
    ("requestPrincipals", "https://id.example/ann"),
    ("connection.sni", "shop.example"),
];

/// Every policy is asked at least this often.
const ENOUGH: usize = 40;

/// The loopback addresses that stand for those of policies, by network; with a number, a variant's own.
pub(crate) type Addresses = BTreeMap<(usize, [u8; 2]), u8>;

/// Something a rule asks about: what, which values, and whether they are wanted.
struct Condition {
    what: String,
    values: Vec<String>,
    wanted: bool,
}

/// Moves a variant's addresses, and makes its requests.
pub(crate) fn requests(number: usize, variant: &mut Variant, addresses: &mut Addresses, random: &mut Rng) {
    move_addresses(number, variant, addresses);
    let mut conditions: Vec<Vec<Condition>> = variant.policies.iter().flat_map(combinations).collect();
    let of_values: Vec<Condition> = ANYTHING
        .iter()
        .map(|(what, value)| Condition { what: (*what).into(), values: vec![(*value).into()], wanted: true })
        .collect();
    if conditions.iter().all(Vec::is_empty) {
        conditions.push(of_values);
    }
    let (mut found, mut near) = (Vec::new(), Vec::new());
    for conditions in &conditions {
        let hit = |random: &mut Rng| -> Vec<Option<String>> {
            let pick = |condition: &Condition, random: &mut Rng| {
                let value = &condition.values[random.usize(..condition.values.len())];
                condition.wanted.then(|| concrete(&condition.what, value, random))
            };
            conditions.iter().map(|condition| pick(condition, random)).collect()
        };
        found.push(build(number, conditions, &hit(random), random));
        for (i, condition) in conditions.iter().enumerate() {
            let base = hit(random);
            let mut with = |value: Option<String>, random: &mut Rng| {
                let mut values = base.clone();
                values[i] = value;
                near.push(build(number, conditions, &values, random));
            };
            for value in &condition.values {
                let value = concrete(&condition.what, value, random);
                with(Some(value.clone()), random);
                with(Some(miss(&condition.what, &value, random)), random);
            }
            with(None, random);
        }
    }
    random.shuffle(&mut near);
    // Whatever is short of enough is made of a few conditions each.
    for _ in 0..ENOUGH * 4 {
        let conditions = &conditions[random.usize(..conditions.len())];
        let some = |condition: &Condition, random: &mut Rng| {
            let value = &condition.values[random.usize(..condition.values.len())];
            let value = concrete(&condition.what, value, random);
            match random.u8(..4) {
                0 => None,
                1 => Some(miss(&condition.what, &value, random)),
                _ => Some(value),
            }
        };
        let values: Vec<_> = conditions.iter().map(|condition| some(condition, random)).collect();
        near.push(build(number, conditions, &values, random));
    }
    if variant.mesh.contains("extensionProviders") {
        for request in found.iter_mut().chain(&mut near) {
            let answer = if random.bool() { TOLD.1 } else { "deny" };
            request.headers.push((TOLD.0.into(), answer.into()));
        }
    }
    for request in near {
        let again = found.contains(&request);
        if again && found.len() < ENOUGH && variant.limit > ENOUGH {
            // Few values make few requests: then it is asked again, with something that no rule speaks of.
            let mut request = request;
            request.headers.push(("x-again".into(), found.len().to_string()));
            found.push(request);
        } else if !again && found.len() < variant.limit {
            found.push(request);
        }
    }
    variant.requests = found;
}

/// Networks of policies into 127.0.0.0/8. Addresses that are listened on are each variant's own.
fn move_addresses(number: usize, variant: &mut Variant, addresses: &mut Addresses) {
    let text = Value::from(variant.policies.clone()).to_string();
    let own = if text.contains("destination.ip") { number + 1 } else { 0 };
    let pattern = regex::Regex::new(r"\b(\d{1,3})\.(\d{1,3})(\.\d{1,3}\.\d{1,3})\b").unwrap();
    let mut moved = |value: &Value| -> Value {
        let text = value.to_string();
        let moved = pattern.replace_all(&text, |found: &regex::Captures<'_>| {
            let free = addresses.len() as u8 + 1;
            assert!(free < 200, "too many networks");
            let network = [found[1].parse().unwrap(), found[2].parse().unwrap()];
            let octet = *addresses.entry((own, network)).or_insert(free);
            format!("127.{octet}{}", &found[3])
        });
        serde_json::from_str(&moved).unwrap()
    };
    variant.policies = variant.policies.iter().map(&mut moved).collect();
    variant.expected = variant.expected.iter().map(&mut moved).collect();
}

/// The conditions of each rule, for each of its sources and operations.
fn combinations(policy: &Value) -> Vec<Vec<Condition>> {
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let strings =
        |value: &Value| -> Vec<String> { list(value).iter().map(|v| v.as_str().unwrap().to_owned()).collect() };
    let or_nothing = |items: Vec<Value>| if items.is_empty() { vec![Value::Null] } else { items };
    let mut found = Vec::new();
    for rule in list(&policy["spec"]["rules"]) {
        for from in or_nothing(list(&rule["from"])) {
            for to in or_nothing(list(&rule["to"])) {
                let mut conditions = Vec::new();
                for fields in [&from["source"], &to["operation"]] {
                    for (field, values) in fields.as_object().into_iter().flatten() {
                        let what = match field.strip_prefix("not") {
                            Some(rest) => rest[..1].to_lowercase() + &rest[1..],
                            None => field.clone(),
                        };
                        let wanted = *field == what;
                        conditions.push(Condition { what, values: strings(values), wanted });
                    }
                }
                for when in list(&rule["when"]) {
                    for (field, wanted) in [("values", true), ("notValues", false)] {
                        let (what, values) = (when["key"].as_str().unwrap().to_owned(), strings(&when[field]));
                        if !values.is_empty() {
                            conditions.push(Condition { what, values, wanted });
                        }
                    }
                }
                found.push(conditions);
            }
        }
    }
    found
}

fn is_address(what: &str) -> bool {
    matches!(what, "ipBlocks" | "remoteIpBlocks" | "source.ip" | "remote.ip" | "destination.ip")
}

fn is_identity(what: &str) -> bool {
    matches!(
        what,
        "principals" | "source.principal" | "namespaces" | "source.namespace" | "serviceAccounts" | "trustDomains"
    )
}

/// Whether it can stand in a SPIFFE id: other certificates are refused before any policy is asked.
fn is_id(value: &str) -> bool {
    let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '.' | '-' | '_');
    value.split('/').all(|part| !part.is_empty() && part != "." && part != ".." && part.chars().all(allowed))
}

fn is_request_principal(what: &str) -> bool {
    matches!(what, "requestPrincipals" | "request.auth.principal")
}

/// A value that a pattern matches.
fn concrete(what: &str, pattern: &str, random: &mut Rng) -> String {
    let filler = ["x1", "other", "q"][random.usize(..3)];
    if is_address(what) {
        let (network, length) = block(pattern);
        // Each address that is listened on is a workload, and an explanation has to translate for all of them.
        let host = if what == "destination.ip" { 7 } else { random.u32(1..1 << 16) };
        let inside = if length < 32 { host & ((1 << (32 - length)) - 1) } else { 0 };
        return Ipv4Addr::from(u32::from(network) | inside).to_string();
    }
    if is_request_principal(what) {
        // The issuer and the subject: the pattern's end is at one of them.
        return match (pattern, pattern.strip_suffix('*'), pattern.strip_prefix('*')) {
            ("*", ..) => format!("https://any.example/{filler}"),
            (_, Some(issuer), _) if issuer.ends_with('/') => format!("{issuer}{filler}"),
            (_, Some(issuer), _) => format!("{issuer}{filler}/{filler}"),
            (_, _, Some(subject)) => format!("https://any.example/{filler}{subject}"),
            _ => pattern.to_owned(),
        };
    }
    if what == "paths" && pattern.contains('{') {
        return pattern.replace("{**}", "a/b").replace("{*}", filler);
    }
    match (pattern, pattern.strip_suffix('*'), pattern.strip_prefix('*')) {
        ("*", ..) if what == "paths" => format!("/{filler}"),
        ("*", ..) => filler.to_owned(),
        (_, Some(prefix), _) => format!("{prefix}{filler}"),
        (_, _, Some(suffix)) if what == "paths" => format!("/{filler}{suffix}"),
        (_, _, Some(suffix)) => format!("{filler}{suffix}"),
        _ => pattern.to_owned(),
    }
}

fn block(text: &str) -> (Ipv4Addr, u32) {
    let (network, length) = text.split_once('/').unwrap_or((text, "32"));
    (network.parse().unwrap(), length.parse().unwrap())
}

/// A value that is nearly another.
fn miss(what: &str, value: &str, random: &mut Rng) -> String {
    if is_address(what) {
        // One of the lower half's bits: the network of the upper half stays this policy's own.
        let bit = if what == "destination.ip" { 8 } else { random.u32(..16) };
        return Ipv4Addr::from(u32::from(block(value).0) ^ (1 << bit)).to_string();
    }
    if matches!(what, "ports" | "destination.port") {
        return (value.parse::<u16>().unwrap() + 1).to_string();
    }
    let cut = &value[..value.len() - usize::from(value.len() > 1)];
    let changed = match random.u8(..5) {
        0 => format!("{value}x"),
        1 => cut.trim_end_matches(['.', '-']).to_owned(),
        2 if what == "paths" => format!("/x{value}"),
        2 => format!("x{value}"),
        3 if what == "paths" => format!("{value}?x=1"),
        3 if what == "hosts" => format!("{value}:8080"),
        3 if what == "connection.sni" => format!("{value}.x"),
        3 => value.to_uppercase(),
        _ if what == "paths" => format!("{value}/"),
        _ => value.chars().rev().collect(),
    };
    let can_be = match what {
        "connection.sni" => !changed.starts_with(['.', '-']) && !changed.ends_with(['.', '-']),
        "paths" => changed.starts_with('/'),
        _ if is_identity(what) => is_id(&changed),
        _ => true,
    };
    if can_be { changed } else { format!("{value}x") }
}

/// The request that has these values.
fn build(number: usize, conditions: &[Condition], values: &[Option<String>], random: &mut Rng) -> Ask {
    let mut ask = Ask {
        uri: None,
        subject: String::new(),
        sni: String::new(),
        source: Ipv4Addr::new(127, 250, 0, 1),
        forwarded_for: None,
        to: SocketAddrV4::new(Ipv4Addr::new(127, 201, number as u8, 1), 8080),
        method: "GET".into(),
        host: "httpbin".into(),
        path: "/".into(),
        headers: Vec::new(),
        claims: None,
    };
    for (condition, value) in conditions.iter().zip(values) {
        if let Some(value) = value {
            set(&mut ask, &condition.what, value, random);
        }
    }
    if !ask.sni.is_empty() && ask.uri.is_none() {
        ask.uri = Some("spiffe://cluster.local/ns/any/sa/any".into());
    }
    if let Some(claims) = &mut ask.claims {
        let claims = claims.as_object_mut().unwrap();
        claims.entry("iss").or_insert_with(|| "https://any.example".into());
    }
    ask
}

fn set(ask: &mut Ask, what: &str, value: &str, random: &mut Rng) {
    let mut claim = |path: &[&str], value: Value| {
        let mut at = ask.claims.get_or_insert_with(|| json!({}));
        for key in path {
            at = &mut at[*key];
        }
        *at = value;
    };
    let mut one_or_several = |value: &str| match random.bool() {
        true => json!(value),
        false => json!(["another", value]),
    };
    let of_namespace = |value: &str| format!("spiffe://cluster.local/ns/{value}/sa/any");
    match what {
        "principals" | "source.principal" => {
            // A namespace can be had from the subject as well.
            ask.subject = ask.uri.take().filter(|other| other.ends_with("/sa/any")).unwrap_or_default();
            ask.uri = Some(format!("spiffe://{value}"));
        }
        "namespaces" | "source.namespace" => match &ask.uri {
            None => ask.uri = Some(of_namespace(value)),
            Some(_) => ask.subject = of_namespace(value),
        },
        "serviceAccounts" => {
            let (namespace, account) = value.split_once('/').unwrap_or(("foo", value));
            ask.uri = Some(format!("spiffe://cluster.local/ns/{namespace}/sa/{account}"));
        }
        "trustDomains" => ask.uri = Some(format!("spiffe://{value}/ns/any/sa/any")),
        "ipBlocks" | "source.ip" => ask.source = value.parse().unwrap(),
        "remoteIpBlocks" | "remote.ip" => ask.forwarded_for = Some(value.parse().unwrap()),
        "destination.ip" => ask.to.set_ip(value.parse().unwrap()),
        "ports" | "destination.port" => ask.to.set_port(value.parse().unwrap()),
        "hosts" => ask.host = value.into(),
        "methods" => ask.method = value.into(),
        "paths" => ask.path = value.into(),
        "connection.sni" => ask.sni = value.into(),
        "request.auth.audiences" => claim(&["aud"], one_or_several(value)),
        "request.auth.presenter" => claim(&["azp"], one_or_several(value)),
        "requestPrincipals" | "request.auth.principal" => {
            let (issuer, subject) = value.rsplit_once('/').unwrap_or((value, ""));
            claim(&["iss"], json!(issuer));
            claim(&["sub"], json!(subject));
        }
        "request.headers[:method]" => ask.method = value.into(),
        // No filter that a mesh has writes it.
        _ if what.starts_with("experimental.") => {}
        _ => {
            let (of, keys) = what.split_once('[').unwrap_or_else(|| panic!("{what} is not asked about yet"));
            let keys: Vec<&str> = keys.trim_end_matches(']').split("][").collect();
            match of {
                "request.headers" => ask.headers.push((keys[0].to_lowercase(), value.into())),
                "request.auth.claims" if keys == ["iss"] => claim(&keys, json!(value)),
                "request.auth.claims" => claim(&keys, one_or_several(value)),
                _ => panic!("{what} is not asked about yet"),
            }
        }
    }
}
