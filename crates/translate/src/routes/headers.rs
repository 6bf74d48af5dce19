//! Header changes: what `headers` of a route or a destination adds, sets and removes.

use std::collections::BTreeMap;

use maille_api::networking::virtual_service::{HeaderOperations, Headers};
use maille_xds::types::core::header_value_option::HeaderAppendAction;
use maille_xds::types::core::{HeaderValue, HeaderValueOption};

/// Changes in Envoy's terms; the authority is not a header there but a rewrite.
#[derive(Default)]
pub(crate) struct HeaderChanges {
    pub(crate) request_add: Vec<HeaderValueOption>,
    pub(crate) request_remove: Vec<String>,
    pub(crate) response_add: Vec<HeaderValueOption>,
    pub(crate) response_remove: Vec<String>,
    /// What `:authority` or `host` is to be; `set` wins over `add`.
    pub(crate) authority: Option<String>,
}

impl HeaderChanges {
    pub(crate) fn new(headers: &Headers) -> HeaderChanges {
        let none = HeaderOperations::default();
        let request = headers.request.as_ref().unwrap_or(&none);
        let response = headers.response.as_ref().unwrap_or(&none);
        HeaderChanges {
            request_add: additions(request),
            request_remove: removals(&request.remove),
            response_add: additions(response),
            response_remove: removals(&response.remove),
            authority: authority(&request.set).or_else(|| authority(&request.add)),
        }
    }
}

fn additions(operations: &HeaderOperations) -> Vec<HeaderValueOption> {
    let set = operations.set.iter().map(|header| (header, HeaderAppendAction::OverwriteIfExistsOrAdd));
    let add = operations.add.iter().map(|header| (header, HeaderAppendAction::AppendIfExistsOrAdd));
    set.chain(add)
        .filter(|((key, _), _)| !is_internal(key))
        .map(|((key, value), action)| HeaderValueOption {
            header: Some(HeaderValue { key: key.clone(), value: value.clone(), ..Default::default() }),
            append_action: action.into(),
            ..Default::default()
        })
        .collect()
}

fn removals(names: &[String]) -> Vec<String> {
    names.iter().filter(|name| !is_internal(name)).cloned().collect()
}

fn authority(headers: &BTreeMap<String, String>) -> Option<String> {
    let is_authority = |key: &str| key.eq_ignore_ascii_case(":authority") || key.eq_ignore_ascii_case("host");
    headers.iter().rev().find(|(key, value)| is_authority(key) && !value.is_empty()).map(|(_, value)| value.clone())
}

/// Pseudo headers and `host` cannot be changed as headers: Envoy refuses such a route.
fn is_internal(key: &str) -> bool {
    key.starts_with(':') || key.eq_ignore_ascii_case("host")
}
