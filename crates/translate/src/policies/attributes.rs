//! One attribute of a rule: what Envoy is to compare with its values.

use maille_xds::types::any;

use maille_xds::types::core::{CidrRange, TypedExtensionConfig};
use maille_xds::types::matcher::StringMatcher;
use maille_xds::types::pb::envoy::extensions::path::r#match::uri_template::v3::UriTemplateMatchConfig;
use maille_xds::types::rbac::permission::{self, Rule as Operation};
use maille_xds::types::rbac::principal::{self, Authenticated, Identifier};
use maille_xds::types::rbac::{Permission, Principal};

use super::matchers;
use crate::convert::cidr_range;

/// Why an attribute says nothing of a connection: only requests have it, or its values cannot be read.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Unknowable;

/// Something that can be combined.
pub(super) trait Logic: Sized {
    fn any() -> Self;
    fn all_of(parts: Vec<Self>) -> Self;
    fn one_of(parts: Vec<Self>) -> Self;
    fn not(part: Self) -> Self;
}

impl Logic for Permission {
    fn any() -> Self {
        Permission { rule: Some(Operation::Any(true)) }
    }

    fn all_of(rules: Vec<Self>) -> Self {
        Permission { rule: Some(Operation::AndRules(permission::Set { rules })) }
    }

    fn one_of(rules: Vec<Self>) -> Self {
        Permission { rule: Some(Operation::OrRules(permission::Set { rules })) }
    }

    fn not(rule: Self) -> Self {
        Permission { rule: Some(Operation::NotRule(Box::new(rule))) }
    }
}

impl Logic for Principal {
    fn any() -> Self {
        Principal { identifier: Some(Identifier::Any(true)) }
    }

    fn all_of(ids: Vec<Self>) -> Self {
        Principal { identifier: Some(Identifier::AndIds(principal::Set { ids })) }
    }

    fn one_of(ids: Vec<Self>) -> Self {
        Principal { identifier: Some(Identifier::OrIds(principal::Set { ids })) }
    }

    fn not(id: Self) -> Self {
        Principal { identifier: Some(Identifier::NotId(Box::new(id))) }
    }
}

/// An attribute of who asks.
#[derive(Clone, Debug)]
pub(super) enum From<'a> {
    SourceIp,
    RemoteIp,
    Namespace,
    TrustDomain,
    /// The namespace that is meant where a value names none.
    ServiceAccount(&'a str),
    Principal,
    RequestPrincipal,
    Audience,
    Presenter,
    Header(&'a str),
    Claim(&'a str),
}

/// An attribute of what is asked for.
#[derive(Clone, Debug)]
pub(super) enum To<'a> {
    DestinationIp,
    DestinationPort,
    ServerName,
    /// Metadata that some filter left, by the whole key.
    Metadata(&'a str),
    Host,
    Path,
    Method,
}

/// What the values of an attribute come to: one matcher for each, or one for all of them.
pub(super) type Compared<T> = Vec<Result<T, Unknowable>>;

impl From<'_> {
    /// The attribute that a condition's key stands for.
    pub(super) fn of_key<'a>(key: &'a str, namespace: &'a str) -> Option<From<'a>> {
        Some(match key {
            "source.ip" => From::SourceIp,
            "remote.ip" => From::RemoteIp,
            "source.namespace" => From::Namespace,
            "source.trustDomain" => From::TrustDomain,
            "source.serviceAccount" => From::ServiceAccount(namespace),
            "source.principal" => From::Principal,
            "request.auth.principal" => From::RequestPrincipal,
            "request.auth.audiences" => From::Audience,
            "request.auth.presenter" => From::Presenter,
            _ => match (key.strip_prefix("request.headers"), key.strip_prefix("request.auth.claims")) {
                (Some(header), _) => From::Header(header),
                (_, Some(claim)) => From::Claim(claim),
                _ => return None,
            },
        })
    }

    pub(super) fn compare(&self, values: &[String], of_connection: bool) -> Compared<Principal> {
        if values.is_empty() {
            return Vec::new();
        }
        let each = |make: &dyn Fn(&str) -> Option<Identifier>| -> Compared<Principal> {
            let make = |value: &String| make(value).map(identified).ok_or(Unknowable);
            values.iter().map(make).collect()
        };
        let is_of_request = matches!(
            self,
            From::RequestPrincipal | From::Audience | From::Presenter | From::Header(_) | From::Claim(_)
        );
        if is_of_request && of_connection {
            // One for each value: each of them is left out, or takes the rule with it.
            return values.iter().map(|_| Err(Unknowable)).collect();
        }
        match self {
            From::SourceIp => each(&|value| range(value).map(Identifier::DirectRemoteIp)),
            From::RemoteIp => each(&|value| range(value).map(Identifier::RemoteIp)),
            From::Namespace => each(&|value| Some(peer(namespace(value)))),
            From::TrustDomain => each(&|value| Some(peer(trust_domain(value)))),
            From::ServiceAccount(own) => each(&|value| Some(peer(service_account(own, value)))),
            From::Principal => each(&|value| Some(peer(matchers::prefixed("spiffe://", value)))),
            From::RequestPrincipal => {
                let mut of_values: Vec<Principal> = values.iter().map(|value| request_principal(value)).collect();
                let only = of_values.len() == 1;
                vec![Ok(if only { of_values.remove(0) } else { Principal::one_of(of_values) })]
            }
            From::Audience => vec![Ok(claimed(&["aud"], values))],
            From::Presenter => vec![Ok(claimed(&["azp"], values))],
            From::Header(name) => {
                let name = in_brackets(name);
                each(&|value| Some(Identifier::Header(matchers::header(name?, value, false))))
            }
            From::Claim(path) => vec![claim_path(path).map(|path| claimed(&path, values)).ok_or(Unknowable)],
        }
    }

    /// Whether one matcher stands for all the values.
    pub(super) fn is_whole(&self) -> bool {
        matches!(self, From::RequestPrincipal | From::Audience | From::Presenter | From::Claim(_))
    }
}

impl To<'_> {
    pub(super) fn of_key(key: &str) -> Option<To<'_>> {
        Some(match key {
            "destination.ip" => To::DestinationIp,
            "destination.port" => To::DestinationPort,
            "connection.sni" => To::ServerName,
            _ if key.starts_with("experimental.envoy.filters.") => To::Metadata(key),
            _ => return None,
        })
    }

    pub(super) fn compare(&self, values: &[String], of_connection: bool) -> Compared<Permission> {
        if values.is_empty() {
            return Vec::new();
        }
        let each = |make: &dyn Fn(&str) -> Option<Operation>| -> Compared<Permission> {
            let make = |value: &String| make(value).map(|rule| Permission { rule: Some(rule) }).ok_or(Unknowable);
            values.iter().map(make).collect()
        };
        if matches!(self, To::Host | To::Path | To::Method) && of_connection {
            return values.iter().map(|_| Err(Unknowable)).collect();
        }
        match self {
            To::DestinationIp => each(&|value| range(value).map(Operation::DestinationIp)),
            To::DestinationPort => {
                each(&|value| value.parse().ok().filter(|port| *port <= 65535).map(Operation::DestinationPort))
            }
            To::ServerName => each(&|value| Some(Operation::RequestedServerName(matchers::string(value)))),
            To::Metadata(key) => vec![filter_metadata(key, values)],
            To::Host => each(&|value| Some(Operation::Header(matchers::header(":authority", value, true)))),
            To::Method => each(&|value| Some(Operation::Header(matchers::header(":method", value, false)))),
            To::Path => each(&|value| Some(path(value))),
        }
    }

    /// Whether one matcher stands for all the values.
    pub(super) fn is_whole(&self) -> bool {
        matches!(self, To::Metadata(_))
    }
}

fn identified(identifier: Identifier) -> Principal {
    Principal { identifier: Some(identifier) }
}

/// The URI in the client's certificate.
fn peer(name: StringMatcher) -> Identifier {
    Identifier::Authenticated(Authenticated { principal_name: Some(name) })
}

fn range(value: &str) -> Option<CidrRange> {
    cidr_range(value)
}

fn namespace(value: &str) -> StringMatcher {
    let parts: Vec<String> = value.split('*').map(matchers::quote).collect();
    matchers::regex(format!(".*/ns/{}/.*", parts.join(".*")))
}

fn trust_domain(value: &str) -> StringMatcher {
    match value.split_once('*') {
        Some(("", "")) => matchers::prefix("spiffe://", false),
        None => matchers::prefix(&format!("spiffe://{value}/"), false),
        Some((start, end)) => {
            matchers::regex(format!("spiffe://{}[^/]*{}/.*", matchers::quote(start), matchers::quote(end)))
        }
    }
}

/// An identity may have more parts, before the account and after it.
fn service_account(own: &str, value: &str) -> StringMatcher {
    let (namespace, account) = value.split_once('/').unwrap_or((own, value));
    let (namespace, account) = (matchers::quote(namespace), matchers::quote(account));
    matchers::regex(format!("spiffe://.+/ns/{namespace}/(.+/|)sa/{account}(/.+)?"))
}

/// `ISSUER/SUBJECT`, parted at the last slash since issuers are often URLs.
fn request_principal(value: &str) -> Principal {
    let any = || matchers::regex(".+".to_owned());
    let parted = value.rsplit_once('/');
    let (issuer, subject) = match (value, parted) {
        ("*", _) => (any(), any()),
        (_, Some((issuer, subject))) if value.starts_with('*') => {
            let issuer = match issuer {
                "*" => any(),
                _ => matchers::suffix(issuer.trim_start_matches('*'), false),
            };
            (issuer, matchers::exact(subject, false))
        }
        (_, None) if value.starts_with('*') => (any(), matchers::suffix(&value[1..], false)),
        (_, Some((issuer, subject))) if value.ends_with('*') => {
            let subject = match subject.strip_suffix('*') {
                Some("") | None => any(),
                Some(start) => matchers::prefix(start, false),
            };
            (matchers::exact(issuer, false), subject)
        }
        (_, None) if value.ends_with('*') => (matchers::prefix(&value[..value.len() - 1], false), any()),
        (_, Some((issuer, subject))) => (matchers::exact(issuer, false), matchers::exact(subject, false)),
        (_, None) => (matchers::exact(value, false), matchers::exact("", false)),
    };
    let claim = |name, matcher| identified(Identifier::Metadata(matchers::string_claim(name, matcher)));
    Principal::all_of(vec![claim("iss", issuer), claim("sub", subject)])
}

fn claimed(path: &[&str], values: &[String]) -> Principal {
    identified(Identifier::Metadata(matchers::claim(path, matchers::texts(values))))
}

fn path(value: &str) -> Operation {
    if !value.contains("{*}") && !value.contains("{**}") {
        return Operation::UrlPath(matchers::path(value));
    }
    let template = UriTemplateMatchConfig { path_template: value.replace("{*}", "*").replace("{**}", "**") };
    Operation::UriTemplate(TypedExtensionConfig { name: "uri-template".to_owned(), typed_config: Some(any(&template)) })
}

/// `experimental.envoy.filters.a.b[c]`: the key `c` of what `envoy.filters.a.b` left; `[v]` is an element of a list.
fn filter_metadata(key: &str, values: &[String]) -> Result<Permission, Unknowable> {
    let key = key.trim_start_matches("experimental.");
    let (filter, name) = key.strip_suffix(']').unwrap_or(key).split_once('[').ok_or(Unknowable)?;
    let value = |value: &String| match value.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        Some(_) => matchers::in_list(matchers::string_value(matchers::string(value.trim_matches(['[', ']'])))),
        None => matchers::string_value(matchers::string(value)),
    };
    let values = matchers::one_or_any(values.iter().map(value).collect());
    Ok(Permission { rule: Some(Operation::Metadata(matchers::metadata(filter, &[name], values))) })
}

/// `[NAME]`
fn in_brackets(text: &str) -> Option<&str> {
    text.strip_prefix('[')?.strip_suffix(']')
}

/// `[A][B]`: the claim B inside of A. Brackets that do not come in pairs are part of one name.
fn claim_path(text: &str) -> Option<Vec<&str>> {
    let whole = in_brackets(text)?;
    let parts: Vec<&str> = whole.split("][").collect();
    let plain = parts.iter().all(|part| !part.contains(['[', ']']));
    Some(if plain { parts } else { vec![whole] })
}
