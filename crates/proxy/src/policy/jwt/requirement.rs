//! What is required of a request, and what a good token does to it.

use std::time::Duration;

use maille_http::RequestHead;
use serde_json::{Map, Value};

use super::extract::Found;
use super::{Status, Token};
use crate::config::{JwtFilter, JwtProvider, Requirement};
use crate::route::Request;

/// What a request that passed has shown.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Granted {
    /// What the filter writes into its metadata.
    pub metadata: Map<String, Value>,
    /// Whether the route is to be chosen anew.
    pub clear_route: bool,
}

impl JwtFilter {
    /// Judges a request at a time (since 1970), and changes it as its good tokens have it: the token is taken out, the
    /// payload and claims are put in. What is written down counts even when the request is refused.
    pub fn judge(&self, head: &mut RequestHead, random: u64, now: Duration) -> (Granted, Result<(), Status>) {
        let mut granted = Granted::default();
        let is_preflight = head.method() == b"OPTIONS"
            && head.headers.has(maille_http::HeaderId::Origin)
            && head.headers.has(maille_http::HeaderId::AccessControlRequestMethod);
        if self.bypass_cors_preflight && is_preflight {
            return (granted, Ok(()));
        }
        let request = Request { head, random, tls: Default::default(), metadata: None };
        let path = head.path();
        let Some(rule) = self.rules.iter().find(|rule| rule.matcher.matches(path, &request)) else {
            return (granted, Ok(()));
        };
        let Some(requirement) = &rule.requires else { return (granted, Ok(())) };
        let result = self.meets(requirement, head, now, &mut granted);
        (granted, result)
    }

    /// Whether the path may change while the request is judged.
    pub(crate) fn needs_challenge(&self, head: &RequestHead) -> bool {
        head.query().is_some()
    }

    fn meets(
        &self,
        requirement: &Requirement,
        head: &mut RequestHead,
        now: Duration,
        granted: &mut Granted,
    ) -> Result<(), Status> {
        match requirement {
            Requirement::Provider(i, audiences) => {
                let provider = &self.providers[*i];
                granted.clear_route |= provider.sanitize(head);
                let mut tokens = provider.places.extract(head);
                let mut result = Err(Status::Missing);
                // The last one found is the first one tried; all must be good.
                while let Some(found) = tokens.pop() {
                    result = self.check(&found, Some(provider), audiences.as_deref(), head, now, granted);
                    if result.is_err() {
                        break;
                    }
                }
                result
            }
            Requirement::AllowMissing | Requirement::AllowFailed => {
                for provider in &self.providers {
                    granted.clear_route |= provider.sanitize(head);
                }
                let mut result = Ok(());
                let mut tokens = self.places.extract(head);
                while let Some(found) = tokens.pop() {
                    result = self.check(&found, None, None, head, now, granted);
                }
                if matches!(requirement, Requirement::AllowFailed) { Ok(()) } else { result }
            }
            Requirement::All(all) => all.iter().try_for_each(|each| self.meets(each, head, now, granted)),
            Requirement::Any { of, allow_missing, allow_failed } => {
                let mut failure = Status::Missing;
                for each in of {
                    let Err(status) = self.meets(each, head, now, granted) else { return Ok(()) };
                    // That there is no token, or one of somebody else's, says less than what is wrong with one.
                    let is_vague = matches!(status, Status::Missing | Status::UnknownIssuer);
                    if !is_vague || failure == Status::Missing {
                        failure = status;
                    }
                }
                match *allow_failed || (*allow_missing && failure == Status::Missing) {
                    true => Ok(()),
                    false => Err(failure),
                }
            }
        }
    }

    /// Judges one token, and makes use of it when it is good.
    fn check(
        &self,
        found: &Found<'_>,
        provider: Option<&JwtProvider>,
        audiences: Option<&[Box<str>]>,
        head: &mut RequestHead,
        now: Duration,
        granted: &mut Granted,
    ) -> Result<(), Status> {
        let parsed = Token::parse(&found.text);
        let mut whose = provider.or(if self.providers.len() == 1 { self.providers.first() } else { None });
        let result = parsed.and_then(|token| {
            if !found.is_for(&token.iss) {
                return Err(Status::UnknownIssuer);
            }
            let of_issuer = |issuer: &str| self.providers.iter().find(|p| &*p.issuer == issuer);
            let provider = provider.or_else(|| of_issuer(&token.iss)).or_else(|| of_issuer(""));
            let provider = provider.ok_or(Status::UnknownIssuer)?;
            whose = Some(provider);
            provider.accepts(&token, audiences, now)?;
            provider.apply(&token, found, head, granted)
        });
        if let (Err(status), Some(provider)) = (result, whose)
            && !provider.failure_in_metadata.is_empty()
        {
            let mut failure = Map::new();
            failure.insert("message".into(), status.as_str().into());
            granted.metadata.insert(provider.failure_in_metadata.to_string(), failure.into());
        }
        result
    }
}

impl JwtProvider {
    /// Whether a token of its issuer is good.
    fn accepts(&self, token: &Token<'_>, audiences: Option<&[Box<str>]>, now: Duration) -> Result<(), Status> {
        // A provider that is required by name may still have an issuer of its own.
        if !self.issuer.is_empty() && *self.issuer != *token.iss {
            return Err(Status::UnknownIssuer);
        }
        token.check_time(now.as_secs(), self.clock_skew)?;
        let audiences = audiences.unwrap_or(&self.audiences);
        let is_meant = |own: &String| audiences.iter().any(|wanted| **wanted == *audience(own));
        if !audiences.is_empty() && !token.aud.iter().any(is_meant) {
            return Err(Status::AudienceNotAllowed);
        }
        if self.subject.as_ref().is_some_and(|subject| !subject.matches(token.sub.as_bytes())) {
            return Err(Status::VerificationFails);
        }
        if self.require_expiration && token.exp == 0 {
            return Err(Status::VerificationFails);
        }
        if let Some(most) = self.max_lifetime
            && (token.exp == 0 || token.exp > now.saturating_add(most).as_secs())
        {
            return Err(Status::VerificationFails);
        }
        self.keys.as_ref().ok_or(Status::NoValidKeys)?.verify(token)
    }

    /// Takes away what only we may say; whether there was any of it: the route must not have been chosen by that.
    fn sanitize(&self, head: &mut RequestHead) -> bool {
        let claims = self.claim_headers.iter().map(|(_, name)| name);
        let names = self.payload_header.iter().map(|(name, _)| name).chain(claims);
        names.fold(false, |any, name| head.headers.remove(name) | any)
    }

    /// What a good token does to its request.
    fn apply(
        &self,
        token: &Token<'_>,
        found: &Found<'_>,
        head: &mut RequestHead,
        granted: &mut Granted,
    ) -> Result<(), Status> {
        if let Some((name, pad)) = &self.payload_header {
            let mut payload = token.payload_base64.to_owned();
            while *pad && !payload.len().is_multiple_of(4) {
                payload.push('=');
            }
            head.headers.append(name, payload.as_bytes());
        }
        let mut any = false;
        for (path, name) in &self.claim_headers {
            if let Some(text) = claim(&token.payload, path).and_then(header_value) {
                // A claim is its issuer's text, and who reads the header is not to see another (RFC 9110 §5.5).
                if !text.bytes().all(|b| b == b'\t' || (b >= b' ' && b != 0x7f)) {
                    return Err(Status::ClaimNotSendable);
                }
                head.headers.append(name, text.as_bytes());
                any = true;
            }
        }
        granted.clear_route |= self.clear_route && (any || !self.payload_in_metadata.is_empty());
        if !self.forward {
            found.remove(head);
        }
        if !self.header_in_metadata.is_empty() {
            granted.metadata.insert(self.header_in_metadata.to_string(), token.header.clone().into());
        }
        if !self.payload_in_metadata.is_empty() {
            let mut payload = token.payload.clone();
            for claim in &self.space_delimited {
                if let Some(Value::String(text)) = payload.get(&**claim) {
                    let items: Vec<Value> = text.split(' ').filter(|s| !s.is_empty()).map(Value::from).collect();
                    payload.insert(claim.to_string(), items.into());
                }
            }
            granted.metadata.insert(self.payload_in_metadata.to_string(), payload.into());
        }
        Ok(())
    }
}

/// An audience without its scheme and final slash: both are left out and put in at will.
pub(crate) fn audience(text: &str) -> &str {
    let text = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://")).unwrap_or(text);
    text.strip_suffix('/').unwrap_or(text)
}

fn claim<'p>(payload: &'p Map<String, Value>, path: &[Box<str>]) -> Option<&'p Value> {
    let (first, rest) = path.split_first()?;
    rest.iter().try_fold(payload.get(&**first)?, |value, key| value.get(&**key))
}

/// A claim as a header has it.
fn header_value(claim: &Value) -> Option<String> {
    use base64::Engine as _;
    let text = match claim {
        Value::Null => return None,
        Value::Bool(value) => value.to_string(),
        // Every number is a floating one there (Envoy: authenticator.cc).
        Value::Number(number) => match number.as_f64()? {
            whole if whole.trunc() == whole && (0.0..2_f64.powi(64)).contains(&whole) => (whole as u64).to_string(),
            other => format!("{other:.6}"),
        },
        Value::String(text) => text.clone(),
        Value::Array(_) | Value::Object(_) => base64::engine::general_purpose::STANDARD.encode(claim.to_string()),
    };
    (!text.is_empty()).then_some(text)
}
