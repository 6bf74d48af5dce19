//! RequestAuthentications as Envoy's filter that judges tokens.

mod key_set;

use maille_api::security::request_authentication::{JwtRequirement as Presence, JwtRule};
use maille_model::KeySource;
use maille_xds::types::core::{DataSource, data_source};
use maille_xds::types::hcm::{HttpFilter, http_filter};
use maille_xds::types::pb::envoy::extensions::filters::http::jwt_authn::v3::jwt_provider::{
    JwksSourceSpecifier, NormalizePayload,
};
use maille_xds::types::pb::envoy::extensions::filters::http::jwt_authn::v3::jwt_requirement::RequiresType;
use maille_xds::types::pb::envoy::extensions::filters::http::jwt_authn::v3::requirement_rule::RequirementType;
use maille_xds::types::pb::envoy::extensions::filters::http::jwt_authn::v3::{
    JwtAuthentication, JwtClaimToHeader, JwtHeader, JwtProvider, JwtRequirement, JwtRequirementAndList,
    JwtRequirementOrList, RequirementRule,
};
use maille_xds::types::{Any, Empty, Message, Name};

use crate::Context;
use crate::convert::encoded_field;
use crate::routes::matching::any_request;

const FILTER: &str = "envoy.filters.http.jwt_authn";
/// Where the payload of a token is kept for whoever asks later.
const PAYLOAD: &str = "payload";
/// Claims whose strings are lists.
const SPACE_DELIMITED: [&str; 2] = ["permission", "scope"];

/// The filter, if the workload believes anybody's tokens.
pub(super) fn filter(context: &Context<'_>) -> Option<HttpFilter> {
    let policies = context.snapshot.request_authentications(context.proxy);
    let mut rules: Vec<&JwtRule> = policies.iter().flat_map(|policy| &policy.spec.jwt_rules).collect();
    if rules.is_empty() {
        return None;
    }
    rules.sort_by(|a, b| a.issuer.cmp(&b.issuer));
    let rest = JwtAuthentication {
        rules: vec![RequirementRule {
            r#match: Some(any_request()),
            requirement_type: Some(RequirementType::Requires(requirement(&rules))),
        }],
        bypass_cors_preflight: true,
        ..JwtAuthentication::default()
    };
    // A map would come in another order each time.
    let mut value = rest.encode_to_vec();
    for (i, rule) in rules.iter().enumerate() {
        let mut entry = encoded_field(1, name(i).as_bytes());
        entry.extend(encoded_field(2, &provider(context, rule).encode_to_vec()));
        value.extend(encoded_field(1, &entry));
    }
    Some(HttpFilter {
        name: FILTER.to_owned(),
        config_type: Some(http_filter::ConfigType::TypedConfig(Any { type_url: JwtAuthentication::type_url(), value })),
        ..HttpFilter::default()
    })
}

fn name(index: usize) -> String {
    format!("origins-{index}")
}

fn provider(context: &Context<'_>, rule: &JwtRule) -> JwtProvider {
    let mut delimited: Vec<String> = rule.space_delimited_claims.clone();
    delimited.extend(SPACE_DELIMITED.map(str::to_owned));
    delimited.sort();
    delimited.dedup();
    let headers = rule.from_headers.iter();
    let claims = rule.output_claim_to_headers.iter();
    JwtProvider {
        issuer: rule.issuer.clone(),
        audiences: rule.audiences.clone(),
        forward: rule.forward_original_token,
        forward_payload_header: rule.output_payload_to_header.clone(),
        payload_in_metadata: PAYLOAD.to_owned(),
        normalize_payload_in_metadata: Some(NormalizePayload { space_delimited_claims: delimited }),
        // What a token says may decide where a request goes, at gateways.
        clear_route_cache: context.proxy.is_router(),
        from_headers: headers
            .map(|header| JwtHeader { name: header.name.clone(), value_prefix: header.prefix.clone() })
            .collect(),
        from_params: rule.from_params.clone(),
        from_cookies: rule.from_cookies.clone(),
        claim_to_headers: claims
            .map(|output| JwtClaimToHeader {
                header_name: output.header.clone(),
                claim_name: output.claim.clone(),
                ..JwtClaimToHeader::default()
            })
            .collect(),
        jwks_source_specifier: Some(JwksSourceSpecifier::LocalJwks(DataSource {
            specifier: Some(data_source::Specifier::InlineString(keys(context, rule))),
            ..DataSource::default()
        })),
        ..JwtProvider::default()
    }
}

/// The issuer's keys: written down, or as they were last fetched, or none that anybody could sign with.
fn keys(context: &Context<'_>, rule: &JwtRule) -> String {
    let fetched = || context.snapshot.key_sets().get(&KeySource::of(rule)).map(|keys| &**keys);
    let written = Some(rule.jwks.as_str()).filter(|keys| !keys.is_empty());
    key_set::usable(written.or_else(fetched)).into_owned()
}

/// A request needs no token, but one that it has must be good. With several issuers, one good token is enough for those
/// that look in the same place. An issuer whose token is required is not made up for by any other's.
fn requirement(rules: &[&JwtRule]) -> JwtRequirement {
    let provided = |i: usize| requires(RequiresType::ProviderName(name(i)));
    let each: Vec<JwtRequirement> = rules
        .iter()
        .enumerate()
        .map(|(i, rule)| match rule.presence {
            Presence::Required => provided(i),
            Presence::Optional => any_of(vec![provided(i), requires(RequiresType::AllowMissing(Empty {}))]),
        })
        .collect();
    if let [only] = each.as_slice() {
        return only.clone();
    }
    let count = each.len();
    let all = requires(RequiresType::RequiresAll(JwtRequirementAndList { requirements: each }));
    if rules.iter().any(|rule| rule.presence == Presence::Required) {
        return all;
    }
    any_of((0..count).map(provided).chain([all]).collect())
}

fn any_of(requirements: Vec<JwtRequirement>) -> JwtRequirement {
    requires(RequiresType::RequiresAny(JwtRequirementOrList { requirements }))
}

fn requires(requires_type: RequiresType) -> JwtRequirement {
    JwtRequirement { requires_type: Some(requires_type) }
}
