//! RequestAuthentication.

use super::findings::{At, Problem, Verdict};
use super::{header, jwks, policy_target, rules};
use crate::security::RequestAuthentication;
use crate::security::request_authentication::JwtRule;

const RULES_MAX: usize = 4096;
const URI_MAX: usize = 2048;
const CLAIMS_MAX: usize = 64;

pub(super) fn validate(policy: &RequestAuthentication, at: &mut At<'_>) {
    policy_target::validate(policy.selector.as_ref(), policy.target_ref.as_ref(), &policy.target_refs, at);
    let mut at = at.field("jwtRules");
    if policy.jwt_rules.len() > RULES_MAX {
        at.error(format!("there are {} rules, at most {RULES_MAX} are allowed", policy.jwt_rules.len()));
    }
    for (i, rule) in policy.jwt_rules.iter().enumerate() {
        jwt_rule(rule, &mut at.index(i));
    }
}

fn jwt_rule(rule: &JwtRule, at: &mut At<'_>) {
    if rule.issuer.is_empty() && rule.jwks_uri.is_empty() {
        at.field("issuer").error("a rule needs an issuer, or a `jwksUri`");
    }
    filled("audience", &rule.audiences, &mut at.field("audiences"));
    keys(rule, at);
    for (i, location) in rule.from_headers.iter().enumerate() {
        if location.name.is_empty() {
            at.field("fromHeaders").index(i).field("name").error("the name of the header is missing");
        }
    }
    filled("name of the parameter", &rule.from_params, &mut at.field("fromParams"));
    filled("name of the cookie", &rule.from_cookies, &mut at.field("fromCookies"));
    for (i, output) in rule.output_claim_to_headers.iter().enumerate() {
        let mut at = at.field("outputClaimToHeaders");
        let at = &mut at.index(i);
        if output.claim.is_empty() {
            at.field("claim").error("the name of the claim is missing");
        }
        at.field("header").check(header::strict_name(&output.header));
    }
    if let Some(timeout) = rule.timeout {
        at.field("timeout").check(rules::duration(timeout));
    }
    let mut claims = at.field("spaceDelimitedClaims");
    if rule.space_delimited_claims.len() > CLAIMS_MAX {
        claims
            .error(format!("there are {} claims, at most {CLAIMS_MAX} are allowed", rule.space_delimited_claims.len()));
    }
    filled("name of the claim", &rule.space_delimited_claims, &mut claims);
}

fn keys(rule: &JwtRule, at: &mut At<'_>) {
    if !rule.jwks_uri.is_empty() {
        at.field("jwksUri").check(uri(&rule.jwks_uri));
        if !rule.jwks.is_empty() {
            at.field("jwks").error("only one of `jwks` and `jwksUri` can be set");
        }
    }
    if rule.jwks.is_empty() {
        return;
    }
    match jwks::check(&rule.jwks) {
        Err(problem) => at.field("jwks").error(problem),
        Ok(private) => {
            for index in private {
                at.field("jwks").warn(
                    Problem::new(format!("key {index} contains private key material, and only public keys are needed"))
                        .hint("whoever can read this resource can sign tokens: make a new key"),
                );
            }
        }
    }
}

/// `http://` or `https://`, a host, and a port that is a number.
fn uri(uri: &str) -> Verdict {
    let expected = "write a URL such as https://example.com/.well-known/jwks.json";
    let rest = uri.strip_prefix("https://").or_else(|| uri.strip_prefix("http://"));
    let Some(rest) = rest else {
        return Err(Problem::new("only http:// and https:// are supported").hint(expected));
    };
    if uri.len() > URI_MAX {
        return Err(format!("the URL has {} characters, at most {URI_MAX} are allowed", uri.len()).into());
    }
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    let port = match host.rsplit_once(']') {
        Some((_, after)) => after.strip_prefix(':').unwrap_or_default(),
        None => host.split_once(':').map_or("", |(_, port)| port),
    };
    let blank = uri.bytes().any(|b| b.is_ascii_control() || b == b' ');
    if blank || host.is_empty() || !port.bytes().all(|b| b.is_ascii_digit()) || port.len() > 5 {
        return Err(Problem::new(format!("`{uri}` is not a URL")).hint(expected));
    }
    Ok(())
}

fn filled(what: &str, values: &[String], at: &mut At<'_>) {
    for (i, value) in values.iter().enumerate() {
        if value.is_empty() {
            at.index(i).error(format!("the {what} is empty"));
        }
    }
}
