//! The parsers, each with the words it knows and what must hold of its answers.

mod addresses;
mod body;
mod frames;
mod headers;
mod identity;
mod logs;
mod message;
mod path;
mod requests;
mod token;

/// A parser.
pub(crate) struct Target {
    /// Its name, and its corpus's.
    pub(crate) name: &'static str,
    /// Words that its input is made of.
    pub(crate) dictionary: &'static [&'static [u8]],
    /// Has an input parsed and checks the answer: what kind of answer it is, or what is wrong with it.
    pub(crate) check: fn(&[u8]) -> Answer,
}

/// What kind of answer an input got, roughly (inputs with new ones are mutated further), or what is wrong with it.
pub(crate) type Answer = Result<String, String>;

/// Every parser of network input.
pub(crate) const TARGETS: &[Target] = &[
    Target { name: "request", dictionary: message::WORDS, check: message::request },
    Target { name: "response", dictionary: message::WORDS, check: message::response },
    Target { name: "body", dictionary: body::WORDS, check: body::check },
    Target { name: "path", dictionary: path::WORDS, check: path::check },
    Target { name: "host", dictionary: addresses::HOST_WORDS, check: addresses::host },
    Target { name: "proxy_header", dictionary: addresses::PROXY_WORDS, check: addresses::proxy_header },
    Target { name: "client_hello", dictionary: addresses::HELLO_WORDS, check: addresses::client_hello },
    Target { name: "headers", dictionary: message::WORDS, check: headers::check },
    Target { name: "spiffe", dictionary: identity::ID_WORDS, check: identity::spiffe },
    Target { name: "certificate", dictionary: identity::DER_WORDS, check: identity::certificate },
    Target { name: "csr", dictionary: identity::DER_WORDS, check: identity::csr },
    Target { name: "token", dictionary: token::WORDS, check: token::own },
    Target { name: "jwt", dictionary: token::WORDS, check: token::jwt },
    Target { name: "keys", dictionary: token::WORDS, check: token::keys },
    Target { name: "frames", dictionary: frames::WORDS, check: frames::frames },
    Target { name: "fields", dictionary: frames::WORDS, check: frames::fields },
    Target { name: "http_inspector", dictionary: message::WORDS, check: message::inspector },
    Target { name: "forwarded", dictionary: requests::CLIENT_WORDS, check: requests::forwarded },
    Target { name: "client_cert", dictionary: requests::CLIENT_WORDS, check: requests::client_cert },
    Target { name: "values", dictionary: requests::VALUE_WORDS, check: requests::values },
    Target { name: "tokens", dictionary: requests::VALUE_WORDS, check: requests::tokens },
    Target { name: "terms", dictionary: requests::TERMS_WORDS, check: requests::terms },
    Target { name: "dns", dictionary: requests::DNS_WORDS, check: requests::dns },
    Target { name: "authorizer", dictionary: requests::AUTHZ_WORDS, check: requests::authorizer },
    Target { name: "log", dictionary: logs::WORDS, check: logs::check },
];

/// Nothing more to say, or what is wrong.
fn ensure(holds: bool, otherwise: impl FnOnce() -> String) -> Result<(), String> {
    if holds { Ok(()) } else { Err(otherwise()) }
}
