//! AuthorizationPolicies in, filters out: those that upstream's control plane made of the same policies.

use maille_xds::json::Schema;
use maille_xds::types::Message;
use serde_json::Value;

use crate::sets::{self, normal};
use crate::{sidecar, yaml};

#[test]
fn conformance_of_authorization_filters() {
    let sets = sets::all();
    if sets.is_empty() {
        return;
    }
    let (mut judged, mut wrong) = (0, Vec::new());
    for set in &sets {
        let filters = filters(&format!("{}\n---{}", set.policies, sets::AUTHORIZER), &set.mesh, set.http);
        for (i, expected) in set.expected.iter().enumerate() {
            judged += 1;
            let theirs = normal(&yaml::read(expected));
            let ours = filters.get(i).map(normal).unwrap_or_default();
            if ours != theirs {
                let print = |value: &Value| serde_json::to_string_pretty(value).expect("JSON");
                wrong.push(format!("{} {i}\n{}", set.name, difference(&print(&theirs), &print(&ours))));
            }
        }
    }
    assert!(judged > 15, "only {judged} filters");
    assert!(wrong.is_empty(), "{} of {judged} differ:\n{}", wrong.len(), wrong.join("\n\n"));
}

/// The filters of an inbound chain that enforce policies.
fn filters(yaml: &str, mesh: &str, http: bool) -> Vec<Value> {
    let listener = sidecar::inbound(yaml, mesh);
    let url = "type.googleapis.com/envoy.config.listener.v3.Listener";
    let listener = Schema::load().print(url, &listener.encode_to_vec()).expect("JSON");
    let chains = listener["filter_chains"].as_array().expect("chains");
    let is_http = |chain: &&Value| {
        let last = chain["filters"].as_array().and_then(|filters| filters.last()).expect("filters");
        last["name"] == "envoy.filters.network.http_connection_manager"
    };
    let of_policy = |filter: &&Value| {
        let name = filter["name"].as_str().unwrap_or_default();
        name.ends_with(".rbac") || name.ends_with(".ext_authz")
    };
    let found = match http {
        true => chains.iter().find(is_http).map(|chain| &chain["filters"][0]["typed_config"]["http_filters"]),
        false => chains.iter().skip(1).find(|chain| !is_http(chain)).map(|chain| &chain["filters"]),
    };
    found.and_then(Value::as_array).expect("filters").iter().filter(of_policy).cloned().collect()
}

fn difference(theirs: &str, ours: &str) -> String {
    let (theirs, ours): (Vec<&str>, Vec<&str>) = (theirs.lines().collect(), ours.lines().collect());
    let first = theirs.iter().zip(&ours).position(|(a, b)| a != b).unwrap_or(theirs.len().min(ours.len()));
    let near =
        |lines: &[&str]| lines[first.saturating_sub(6).min(lines.len())..(first + 6).min(lines.len())].join("\n");
    format!("theirs, around line {first}:\n{}\nours:\n{}", near(&theirs), near(&ours))
}
