//! RBAC rules of the HTTP and the network filter.

use maille_xds::types::matcher::{list_matcher, metadata_matcher, path_matcher, value_matcher};
use maille_xds::types::pb::envoy::extensions::filters::http::rbac::v3::Rbac as HttpProto;
use maille_xds::types::pb::envoy::extensions::filters::network::rbac::v3::Rbac as NetworkProto;
use maille_xds::types::pb::envoy::extensions::path::r#match::uri_template::v3::UriTemplateMatchConfig;
use maille_xds::types::rbac::permission::Rule;
use maille_xds::types::rbac::principal::Identifier;
use maille_xds::types::rbac::rbac::Action;
use maille_xds::types::rbac::{self as proto, MetadataSource};
use maille_xds::types::{core, kind, matcher as matchers};

use crate::compile::at::{At, Compiled, unset};
use crate::compile::{matcher, template};
use crate::config::{
    Cidr, Condition, MetadataMatcher, MetadataValue, Rbac, RbacAction, RbacPolicy, Rules, SourceAddress, StringMatcher,
};

/// The HTTP filter.
pub(crate) fn http(at: &At<'_>, proto: &HttpProto) -> Compiled<Rbac> {
    let HttpProto {
        rules,
        rules_stat_prefix,
        matcher,
        shadow_rules,
        shadow_matcher,
        shadow_rules_stat_prefix,
        // Metrics.
        track_per_rule_stats: _,
    } = proto;
    unset!(at; matcher, shadow_matcher);
    Ok(Rbac {
        rules: rules.as_ref().map(|proto| compile(&at.field("rules"), proto)).transpose()?,
        shadow: shadow_rules.as_ref().map(|proto| compile(&at.field("shadow_rules"), proto)).transpose()?,
        prefix: rules_stat_prefix.as_str().into(),
        shadow_prefix: shadow_rules_stat_prefix.as_str().into(),
    })
}

/// The network filter. Whether it looks once or at every read makes no difference here: what it looks at does not change.
pub(crate) fn network(at: &At<'_>, proto: &NetworkProto) -> Compiled<Rbac> {
    let NetworkProto {
        rules,
        matcher,
        shadow_rules,
        shadow_matcher,
        shadow_rules_stat_prefix,
        stat_prefix,
        enforcement_type: _,
        delay_deny,
    } = proto;
    unset!(at; matcher, shadow_matcher, delay_deny);
    Ok(Rbac {
        rules: rules.as_ref().map(|proto| compile(&at.field("rules"), proto)).transpose()?,
        shadow: shadow_rules.as_ref().map(|proto| compile(&at.field("shadow_rules"), proto)).transpose()?,
        prefix: stat_prefix.as_str().into(),
        shadow_prefix: shadow_rules_stat_prefix.as_str().into(),
    })
}

fn compile(at: &At<'_>, proto: &proto::Rbac) -> Compiled<Rules> {
    let proto::Rbac { action, policies, audit_logging_options } = proto;
    unset!(at; audit_logging_options);
    let action = match at.one_of("action", *action)? {
        Action::Allow => RbacAction::Allow,
        Action::Deny => RbacAction::Deny,
        Action::Log => RbacAction::Log,
    };
    let mut compiled = Vec::with_capacity(policies.len());
    for (name, proto) in policies {
        let at = at.field("policies");
        compiled.push(policy(&at.field(name), name, proto)?);
    }
    compiled.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(Rules::new(action, compiled))
}

fn policy(at: &At<'_>, name: &str, proto: &proto::Policy) -> Compiled<RbacPolicy> {
    let proto::Policy { permissions, principals, condition, checked_condition, cel_config } = proto;
    unset!(at; condition, checked_condition, cel_config);
    if permissions.is_empty() || principals.is_empty() {
        return at.refuse("needs permissions and principals");
    }
    let permission = |(i, proto)| permission(&at.item("permissions", i), proto);
    let principal = |(i, proto)| principal(&at.item("principals", i), proto);
    Ok(RbacPolicy {
        name: name.into(),
        permissions: permissions.iter().enumerate().map(permission).collect::<Compiled<_>>()?,
        principals: principals.iter().enumerate().map(principal).collect::<Compiled<_>>()?,
    })
}

fn permission(at: &At<'_>, proto: &proto::Permission) -> Compiled<Condition> {
    let set = |field: &str, protos: &[proto::Permission]| -> Compiled<Vec<Condition>> {
        protos.iter().enumerate().map(|(i, proto)| permission(&at.item(field, i), proto)).collect()
    };
    Ok(match at.required("rule", &proto.rule)? {
        Rule::AndRules(all) => Condition::All(set("and_rules", &all.rules)?),
        Rule::OrRules(any) => Condition::Any(set("or_rules", &any.rules)?),
        Rule::Any(any) => always(&at.field("any"), *any)?,
        Rule::Header(proto) => Condition::Header(matcher::header(&at.field("header"), proto)?),
        Rule::UrlPath(proto) => Condition::Path(path(&at.field("url_path"), proto)?),
        Rule::DestinationIp(proto) => Condition::DestinationIp(cidr(at, "destination_ip", proto)?),
        Rule::DestinationPort(port) => Condition::DestinationPort(*port..port.saturating_add(1)),
        Rule::DestinationPortRange(kind::Int32Range { start, end }) => {
            match (u32::try_from(*start), u32::try_from(*end)) {
                (Ok(start), Ok(end)) if start < end && end <= 65536 => Condition::DestinationPort(start..end),
                _ => return at.field("destination_port_range").refuse(format!("{start}..{end} is no range of ports")),
            }
        }
        Rule::Metadata(proto) => Condition::Metadata(metadata(&at.field("metadata"), proto)?),
        Rule::SourcedMetadata(proto) => sourced(&at.field("sourced_metadata"), proto)?,
        Rule::NotRule(proto) => Condition::Not(Box::new(permission(&at.field("not_rule"), proto)?)),
        Rule::RequestedServerName(proto) => {
            Condition::ServerName(matcher::string(&at.field("requested_server_name"), proto)?)
        }
        Rule::UriTemplate(extension) => {
            let at = at.field("uri_template");
            let core::TypedExtensionConfig { name: _, typed_config } = extension;
            match at.unpack::<UriTemplateMatchConfig>(at.required("typed_config", typed_config)?)? {
                Some(UriTemplateMatchConfig { path_template }) => {
                    Condition::Template(template::compile(&at.field("path_template"), &path_template)?)
                }
                None => return at.refuse("is no path matcher we have"),
            }
        }
        Rule::Matcher(_) => return at.field("matcher").refuse("extensions are not supported"),
    })
}

fn principal(at: &At<'_>, proto: &proto::Principal) -> Compiled<Condition> {
    let set = |field: &str, protos: &[proto::Principal]| -> Compiled<Vec<Condition>> {
        protos.iter().enumerate().map(|(i, proto)| principal(&at.item(field, i), proto)).collect()
    };
    Ok(match at.required("identifier", &proto.identifier)? {
        Identifier::AndIds(all) => Condition::All(set("and_ids", &all.ids)?),
        Identifier::OrIds(any) => Condition::Any(set("or_ids", &any.ids)?),
        Identifier::Any(any) => always(&at.field("any"), *any)?,
        Identifier::Authenticated(proto) => {
            let at = at.field("authenticated");
            let name = proto.principal_name.as_ref();
            Condition::Authenticated(name.map(|p| matcher::string(&at.field("principal_name"), p)).transpose()?)
        }
        Identifier::SourceIp(proto) => Condition::Source(SourceAddress::Direct, cidr(at, "source_ip", proto)?),
        Identifier::DirectRemoteIp(proto) => {
            Condition::Source(SourceAddress::Direct, cidr(at, "direct_remote_ip", proto)?)
        }
        Identifier::RemoteIp(proto) => Condition::Source(SourceAddress::Remote, cidr(at, "remote_ip", proto)?),
        Identifier::Header(proto) => Condition::Header(matcher::header(&at.field("header"), proto)?),
        Identifier::UrlPath(proto) => Condition::Path(path(&at.field("url_path"), proto)?),
        Identifier::Metadata(proto) => Condition::Metadata(metadata(&at.field("metadata"), proto)?),
        Identifier::SourcedMetadata(proto) => sourced(&at.field("sourced_metadata"), proto)?,
        Identifier::NotId(proto) => Condition::Not(Box::new(principal(&at.field("not_id"), proto)?)),
        Identifier::FilterState(_) => return at.field("filter_state").refuse("is not supported"),
        Identifier::Custom(_) => return at.field("custom").refuse("extensions are not supported"),
    })
}

fn always(at: &At<'_>, any: bool) -> Compiled<Condition> {
    if any { Ok(Condition::Always) } else { at.refuse("must be true") }
}

fn path(at: &At<'_>, proto: &matchers::PathMatcher) -> Compiled<StringMatcher> {
    match at.required("rule", &proto.rule)? {
        path_matcher::Rule::Path(proto) => matcher::string(&at.field("path"), proto),
    }
}

fn cidr(at: &At<'_>, field: &str, proto: &core::CidrRange) -> Compiled<Cidr> {
    // One range in, one range out.
    matcher::cidrs(at, field, std::slice::from_ref(proto)).map(|ranges| ranges[0])
}

fn sourced(at: &At<'_>, proto: &proto::SourcedMetadata) -> Compiled<Condition> {
    let proto::SourcedMetadata { metadata_matcher, metadata_source } = proto;
    let condition = metadata(&at.field("metadata_matcher"), at.required("metadata_matcher", metadata_matcher)?)?;
    Ok(match at.one_of("metadata_source", *metadata_source)? {
        MetadataSource::Dynamic => Condition::Metadata(condition),
        MetadataSource::Route => Condition::RouteMetadata(condition),
    })
}

/// A condition on metadata, also of routes.
pub(crate) fn metadata(at: &At<'_>, proto: &matchers::MetadataMatcher) -> Compiled<MetadataMatcher> {
    let matchers::MetadataMatcher { filter, path, value, invert } = proto;
    let segment = |segment: &metadata_matcher::PathSegment| match &segment.segment {
        Some(metadata_matcher::path_segment::Segment::Key(key)) if !key.is_empty() => Ok(key.as_str().into()),
        _ => at.field("path").refuse("has an empty segment"),
    };
    if path.is_empty() {
        return at.field("path").refuse("is empty");
    }
    Ok(MetadataMatcher {
        filter: at.text("filter", filter)?.into(),
        path: path.iter().map(segment).collect::<Compiled<_>>()?,
        value: value_of(&at.field("value"), at.required("value", value)?)?,
        invert: *invert,
    })
}

fn value_of(at: &At<'_>, proto: &matchers::ValueMatcher) -> Compiled<MetadataValue> {
    use value_matcher::MatchPattern;
    Ok(match at.required("match_pattern", &proto.match_pattern)? {
        MatchPattern::NullMatch(_) => MetadataValue::Null,
        MatchPattern::DoubleMatch(proto) => match at.required("match_pattern", &proto.match_pattern)? {
            matchers::double_matcher::MatchPattern::Exact(number) => MetadataValue::Number(*number),
            matchers::double_matcher::MatchPattern::Range(range) => MetadataValue::Range(range.start..range.end),
        },
        MatchPattern::StringMatch(proto) => MetadataValue::String(matcher::string(&at.field("string_match"), proto)?),
        MatchPattern::BoolMatch(wanted) => MetadataValue::Bool(*wanted),
        MatchPattern::PresentMatch(wanted) => MetadataValue::Present(*wanted),
        MatchPattern::ListMatch(proto) => match at.required("match_pattern", &proto.match_pattern)? {
            list_matcher::MatchPattern::OneOf(proto) => {
                MetadataValue::OneOf(Box::new(value_of(&at.field("one_of"), proto)?))
            }
        },
        MatchPattern::OrMatch(proto) => {
            let one = |(i, proto)| value_of(&at.item("value_matchers", i), proto);
            MetadataValue::Or(proto.value_matchers.iter().enumerate().map(one).collect::<Compiled<_>>()?)
        }
    })
}
