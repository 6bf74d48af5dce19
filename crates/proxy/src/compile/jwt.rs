//! The JWT filter.

use std::sync::Arc;

use maille_http::Name;
use maille_xds::types::core::data_source::Specifier;
use maille_xds::types::pb::envoy::extensions::filters::http::jwt_authn::v3::jwt_provider::JwksSourceSpecifier;
use maille_xds::types::pb::envoy::extensions::filters::http::jwt_authn::v3::jwt_requirement::RequiresType;
use maille_xds::types::pb::envoy::extensions::filters::http::jwt_authn::v3::requirement_rule::RequirementType;
use maille_xds::types::pb::envoy::extensions::filters::http::jwt_authn::v3::{self as proto, JwtAuthentication};

use crate::compile::at::{At, Compiled, unset};
use crate::compile::{matcher, route};
use crate::config::{JwtFilter, JwtProvider, JwtRule, Requirement};
use crate::policy::jwt::{Keys, Looks, Places, audience};

/// How wrong clocks may be when the configuration says nothing, in seconds.
const CLOCK_SKEW: u64 = 60;

pub(crate) fn filter(at: &At<'_>, proto: &JwtAuthentication) -> Compiled<JwtFilter> {
    let JwtAuthentication {
        providers,
        rules,
        filter_state_rules,
        bypass_cors_preflight,
        requirement_map,
        strip_failure_response,
        stat_prefix,
    } = proto;
    unset!(at; filter_state_rules);
    let mut names: Vec<&String> = providers.keys().collect();
    names.sort();
    let mut compiled = Vec::with_capacity(names.len());
    let mut places = Vec::with_capacity(names.len());
    for name in &names {
        let at = at.field("providers");
        let looks = Locations::of(&providers[*name]);
        compiled.push(provider(&at.field(name), name, &providers[*name], &looks)?);
        places.push(looks);
    }
    let rule = |(i, proto): (usize, &proto::RequirementRule)| {
        let at = at.item("rules", i);
        let proto::RequirementRule { r#match, requirement_type } = proto;
        let requires = match requirement_type {
            None => None,
            Some(RequirementType::Requires(proto)) => requirement(&at.field("requires"), proto, &names)?,
            Some(RequirementType::RequirementName(name)) => match requirement_map.get(name) {
                Some(proto) => requirement(&at.field("requirement_name"), proto, &names)?,
                None => return at.field("requirement_name").refuse(format!("{name:?} is not in the requirement_map")),
            },
        };
        Ok(JwtRule { matcher: route::route_match(&at.field("match"), at.required("match", r#match)?)?, requires })
    };
    Ok(JwtFilter {
        places: Places::of(compiled.iter().zip(&places).map(|(p, looks)| looks.of_issuer(&p.issuer))),
        rules: rules.iter().enumerate().map(rule).collect::<Compiled<_>>()?,
        providers: compiled,
        bypass_cors_preflight: *bypass_cors_preflight,
        strip_failure_response: *strip_failure_response,
        stat_prefix: stat_prefix.as_str().into(),
    })
}

/// Where a provider looks, defaults included.
struct Locations {
    headers: Vec<(Name, Box<str>)>,
    params: Vec<Box<str>>,
    cookies: Vec<Box<str>>,
}

impl Locations {
    fn of(proto: &proto::JwtProvider) -> Locations {
        let texts = |texts: &[String]| texts.iter().map(|text| text.as_str().into()).collect::<Vec<Box<str>>>();
        let mut out = Locations {
            headers: proto.from_headers.iter().map(|h| (Name::new(&h.name), h.value_prefix.as_str().into())).collect(),
            params: texts(&proto.from_params),
            cookies: texts(&proto.from_cookies),
        };
        if out.headers.is_empty() && out.params.is_empty() && out.cookies.is_empty() {
            out.headers.push((Name::new("authorization"), "Bearer ".into()));
            out.params.push("access_token".into());
        }
        out
    }

    fn of_issuer<'a>(&'a self, issuer: &'a str) -> Looks<'a> {
        Looks { issuer, headers: &self.headers, params: &self.params, cookies: &self.cookies }
    }
}

fn provider(at: &At<'_>, name: &str, proto: &proto::JwtProvider, looks: &Locations) -> Compiled<JwtProvider> {
    let proto::JwtProvider {
        issuer,
        audiences,
        subjects,
        require_expiration,
        max_lifetime,
        forward,
        from_headers,
        from_params: _,
        from_cookies: _,
        forward_payload_header,
        pad_forward_payload_header,
        payload_in_metadata,
        normalize_payload_in_metadata,
        header_in_metadata,
        failed_status_in_metadata,
        clock_skew_seconds,
        // How fast, not what.
        jwt_cache_config: _,
        claim_to_headers,
        clear_route_cache,
        jwks_source_specifier,
    } = proto;
    for header in from_headers {
        matcher::header_name(&at.field("from_headers"), "name", &header.name)?;
    }
    let payload_header = match forward_payload_header.as_str() {
        "" => None,
        name => Some((matcher::header_name(at, "forward_payload_header", name)?, *pad_forward_payload_header)),
    };
    let claim = |proto: &proto::JwtClaimToHeader| {
        let at = at.field("claim_to_headers");
        let proto::JwtClaimToHeader { header_name, claim_name, claim_path } = proto;
        let path: Vec<Box<str>> = match claim_path.is_empty() {
            true => at.text("claim_name", claim_name)?.split('.').map(Box::from).collect(),
            false => claim_path.iter().map(|segment| segment.key.as_str().into()).collect(),
        };
        Ok((path, matcher::header_name(&at, "header_name", header_name)?))
    };
    let keys = match jwks_source_specifier {
        Some(JwksSourceSpecifier::LocalJwks(source)) => match &source.specifier {
            Some(Specifier::InlineString(text)) => Keys::parse(text),
            Some(Specifier::InlineBytes(bytes)) => Keys::parse(&String::from_utf8_lossy(bytes)),
            _ => return at.field("local_jwks").refuse("must be inline"),
        },
        Some(JwksSourceSpecifier::RemoteJwks(_)) => {
            return at.field("remote_jwks").refuse("is not supported: the control plane fetches keys");
        }
        None => return at.field("jwks_source_specifier").refuse("is missing"),
    };
    let keys = match keys {
        Ok(keys) => Some(Arc::new(keys)),
        Err(reason) => {
            // As in Envoy, the configuration stands and no token of this provider is good.
            tracing::warn!(provider = name, "the key set {reason}: all its tokens will be refused");
            None
        }
    };
    let normalized = normalize_payload_in_metadata.iter().flat_map(|n| &n.space_delimited_claims);
    Ok(JwtProvider {
        name: name.into(),
        issuer: issuer.as_str().into(),
        audiences: audiences.iter().map(|text| audience(text).into()).collect(),
        subject: subjects.as_ref().map(|proto| matcher::string(&at.field("subjects"), proto)).transpose()?,
        require_expiration: *require_expiration,
        max_lifetime: at.duration("max_lifetime", max_lifetime)?,
        forward: *forward,
        places: Places::of([looks.of_issuer(issuer)]),
        payload_header,
        payload_in_metadata: payload_in_metadata.as_str().into(),
        header_in_metadata: header_in_metadata.as_str().into(),
        failure_in_metadata: failed_status_in_metadata.as_str().into(),
        space_delimited: normalized.map(|claim| claim.as_str().into()).collect(),
        clock_skew: if *clock_skew_seconds == 0 { CLOCK_SKEW } else { u64::from(*clock_skew_seconds) },
        claim_headers: claim_to_headers.iter().map(claim).collect::<Compiled<_>>()?,
        clear_route: *clear_route_cache,
        keys,
    })
}

/// What is required; `None` when nothing is.
fn requirement(at: &At<'_>, proto: &proto::JwtRequirement, names: &[&String]) -> Compiled<Option<Requirement>> {
    let find = |name: &String| match names.binary_search(&name) {
        Ok(i) => Ok(i),
        Err(_) => at.refuse(format!("there is no provider {name:?}")),
    };
    let Some(requires) = &proto.requires_type else { return Ok(None) };
    Ok(Some(match requires {
        RequiresType::ProviderName(name) => Requirement::Provider(find(name)?, None),
        RequiresType::ProviderAndAudiences(proto::ProviderWithAudiences { provider_name, audiences }) => {
            let own = audiences.iter().map(|text| audience(text).into()).collect::<Vec<Box<str>>>();
            Requirement::Provider(find(provider_name)?, (!own.is_empty()).then_some(own))
        }
        RequiresType::RequiresAny(list) => {
            let (mut of, mut allow_missing, mut allow_failed) = (Vec::new(), false, false);
            for (i, proto) in list.requirements.iter().enumerate() {
                match &proto.requires_type {
                    Some(RequiresType::AllowMissing(_)) => allow_missing = true,
                    Some(RequiresType::AllowMissingOrFailed(_)) => allow_failed = true,
                    // One that requires nothing is always met.
                    None => return Ok(None),
                    Some(_) => of.extend(requirement(&at.item("requires_any", i), proto, names)?),
                }
            }
            match (of.is_empty(), allow_missing, allow_failed) {
                (true, _, true) => Requirement::AllowFailed,
                (true, true, false) => Requirement::AllowMissing,
                _ => Requirement::Any { of, allow_missing, allow_failed },
            }
        }
        RequiresType::RequiresAll(list) => {
            let one = |(i, proto)| requirement(&at.item("requires_all", i), proto, names).transpose();
            Requirement::All(list.requirements.iter().enumerate().filter_map(one).collect::<Compiled<_>>()?)
        }
        RequiresType::AllowMissing(_) => Requirement::AllowMissing,
        RequiresType::AllowMissingOrFailed(_) => Requirement::AllowFailed,
        RequiresType::ExtractOnlyWithoutValidation(_) => {
            return at.field("extract_only_without_validation").refuse("is not supported: nobody would have looked");
        }
    }))
}
