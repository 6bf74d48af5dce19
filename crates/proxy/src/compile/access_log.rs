//! Access logs: sinks, formats, filters.

use std::sync::Arc;

use maille_http::Name;
use maille_telemetry::flags::ResponseFlags;
use maille_telemetry::format::{Format, JsonFormat};
use maille_telemetry::log::Target;
use maille_xds::types::accesslog::access_log_filter::FilterSpecifier;
use maille_xds::types::accesslog::comparison_filter::Op;
use maille_xds::types::accesslog::{self as proto, access_log};
use maille_xds::types::core::substitution_format_string::Format as Shape;
use maille_xds::types::core::{self, data_source};
use maille_xds::types::file_access_log::{FileAccessLog, file_access_log};
use maille_xds::types::stream_access_log::{StderrAccessLog, StdoutAccessLog, stderr_access_log, stdout_access_log};

use crate::compile::at::{At, Compiled};
use crate::compile::matcher;
use crate::config::{AccessLog, Compare, LogFilter, LogFormat};

/// What Envoy logs when it is not told what.
const DEFAULT_FORMAT: &str = concat!(
    "[%START_TIME%] \"%REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% %PROTOCOL%\" ",
    "%RESPONSE_CODE% %RESPONSE_FLAGS% %BYTES_RECEIVED% %BYTES_SENT% %DURATION% ",
    "%RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)% \"%REQ(X-FORWARDED-FOR)%\" \"%REQ(USER-AGENT)%\" ",
    "\"%REQ(X-REQUEST-ID)%\" \"%REQ(:AUTHORITY)%\" \"%UPSTREAM_HOST%\"\n"
);

pub(crate) fn access_logs(at: &At<'_>, protos: &[proto::AccessLog]) -> Compiled<Vec<AccessLog>> {
    protos.iter().enumerate().map(|(i, proto)| access_log(&at.item("access_log", i), proto)).collect()
}

fn access_log(at: &At<'_>, proto: &proto::AccessLog) -> Compiled<AccessLog> {
    let proto::AccessLog { name: _, filter: condition, config_type } = proto;
    let access_log::ConfigType::TypedConfig(any) = at.required("typed_config", config_type)?;
    let typed = at.field("typed_config");
    let (target, format) = if let Some(FileAccessLog { path, access_log_format }) = typed.unpack(any)? {
        let format = match access_log_format {
            None => text(&typed, DEFAULT_FORMAT)?,
            Some(file_access_log::AccessLogFormat::LogFormat(format)) => {
                log_format(&typed.field("log_format"), &format)?
            }
            Some(file_access_log::AccessLogFormat::Format(format)) => text(&typed.field("format"), &format)?,
            Some(
                file_access_log::AccessLogFormat::JsonFormat(shape)
                | file_access_log::AccessLogFormat::TypedJsonFormat(shape),
            ) => json(&typed.field("json_format"), &shape, false)?,
        };
        let target = match typed.text("path", &path)? {
            "/dev/stdout" => Target::Stdout,
            "/dev/stderr" => Target::Stderr,
            path => Target::File(path.into()),
        };
        (target, format)
    } else if let Some(StdoutAccessLog { access_log_format }) = typed.unpack(any)? {
        let format = access_log_format.map(|stdout_access_log::AccessLogFormat::LogFormat(format)| format);
        (Target::Stdout, optional_format(&typed, format)?)
    } else if let Some(StderrAccessLog { access_log_format }) = typed.unpack(any)? {
        let format = access_log_format.map(|stderr_access_log::AccessLogFormat::LogFormat(format)| format);
        (Target::Stderr, optional_format(&typed, format)?)
    } else {
        return typed.refuse(format!("{} is no access log we have: use a file, stdout or stderr", any.type_url));
    };
    let filter = condition.as_ref().map(|proto| filter(&at.field("filter"), proto)).transpose()?;
    Ok(AccessLog { target, format: Arc::new(format), filter })
}

fn optional_format(at: &At<'_>, format: Option<core::SubstitutionFormatString>) -> Compiled<LogFormat> {
    match format {
        None => text(at, DEFAULT_FORMAT),
        Some(format) => log_format(&at.field("log_format"), &format),
    }
}

fn log_format(at: &At<'_>, proto: &core::SubstitutionFormatString) -> Compiled<LogFormat> {
    let core::SubstitutionFormatString { omit_empty_values, content_type: _, formatters, json_format_options, format } =
        proto;
    // Keys are sorted in any case.
    let _ = json_format_options;
    supported_formatters(at, formatters)?;
    match at.required("format", format)? {
        Shape::TextFormat(format) if !omit_empty_values => text(&at.field("text_format"), format),
        Shape::TextFormatSource(core::DataSource {
            watched_directory: None,
            specifier: Some(data_source::Specifier::InlineString(format)),
        }) if !omit_empty_values => text(&at.field("text_format_source"), format),
        Shape::JsonFormat(shape) => json(&at.field("json_format"), shape, *omit_empty_values),
        Shape::TextFormat(_) => at.field("omit_empty_values").refuse("is not supported for text"),
        Shape::TextFormatSource(_) => at.field("text_format_source").refuse("must be an inline_string"),
    }
}

/// Extensions that only add operators are no matter: an operator we do not have is refused where it is used.
fn supported_formatters(at: &At<'_>, formatters: &[core::TypedExtensionConfig]) -> Compiled<()> {
    const KNOWN: [&str; 2] = ["envoy.formatter.req_without_query", "envoy.formatter.metadata"];
    match formatters.iter().position(|formatter| !KNOWN.contains(&formatter.name.as_str())) {
        None => Ok(()),
        Some(i) => at.item("formatters", i).refuse(format!("{:?} is not supported", formatters[i].name)),
    }
}

fn text(at: &At<'_>, format: &str) -> Compiled<LogFormat> {
    Format::parse(format, Name::new).map(LogFormat::Text).or_else(|error| at.refuse(error.to_string()))
}

fn json(at: &At<'_>, shape: &maille_xds::types::Struct, omit_empty: bool) -> Compiled<LogFormat> {
    JsonFormat::parse(&matcher::json(shape), omit_empty, Name::new)
        .map(LogFormat::Json)
        .or_else(|error| at.refuse(error.to_string()))
}

fn filter(at: &At<'_>, proto: &proto::AccessLogFilter) -> Compiled<LogFilter> {
    let all = |at: &At<'_>, filters: &[proto::AccessLogFilter]| {
        filters.iter().enumerate().map(|(i, proto)| filter(&at.item("filters", i), proto)).collect::<Compiled<_>>()
    };
    Ok(match at.required("filter_specifier", &proto.filter_specifier)? {
        FilterSpecifier::StatusCodeFilter(proto::StatusCodeFilter { comparison }) => {
            let (compare, value) = comparison_of(&at.field("status_code_filter"), comparison)?;
            LogFilter::Status(compare, value)
        }
        FilterSpecifier::DurationFilter(proto::DurationFilter { comparison }) => {
            let (compare, value) = comparison_of(&at.field("duration_filter"), comparison)?;
            LogFilter::DurationMs(compare, value)
        }
        FilterSpecifier::NotHealthCheckFilter(_) => LogFilter::NotHealthCheck,
        FilterSpecifier::ResponseFlagFilter(proto::ResponseFlagFilter { flags }) => {
            let at = at.field("response_flag_filter");
            let mut any = ResponseFlags::default();
            for (i, flag) in flags.iter().enumerate() {
                match ResponseFlags::parse(flag) {
                    Some(flag) => any.set(flag),
                    None => return at.item("flags", i).refuse(format!("{flag:?} is no response flag")),
                }
            }
            LogFilter::ResponseFlags((!any.is_empty()).then_some(any))
        }
        FilterSpecifier::OrFilter(or) => LogFilter::Or(all(&at.field("or_filter"), &or.filters)?),
        FilterSpecifier::AndFilter(and) => LogFilter::And(all(&at.field("and_filter"), &and.filters)?),
        FilterSpecifier::TraceableFilter(_)
        | FilterSpecifier::RuntimeFilter(_)
        | FilterSpecifier::HeaderFilter(_)
        | FilterSpecifier::GrpcStatusFilter(_)
        | FilterSpecifier::ExtensionFilter(_)
        | FilterSpecifier::MetadataFilter(_)
        | FilterSpecifier::LogTypeFilter(_) => return at.refuse("is a kind of filter that is not supported"),
    })
}

fn comparison_of(at: &At<'_>, proto: &Option<proto::ComparisonFilter>) -> Compiled<(Compare, u32)> {
    let proto::ComparisonFilter { op, value } = at.required("comparison", proto)?;
    let at = at.field("comparison");
    let compare = match at.one_of("op", *op)? {
        Op::Eq => Compare::Equal,
        Op::Ne => Compare::NotEqual,
        Op::Ge => Compare::AtLeast,
        Op::Le => Compare::AtMost,
    };
    let core::RuntimeUInt32 { default_value, runtime_key: _ } = at.required("value", value)?;
    Ok((compare, *default_value))
}
