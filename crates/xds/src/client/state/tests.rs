//! Scripts of what a server says and what the client must answer.

use super::*;
use crate::types::Any;
use crate::types::discovery;

const CDS: TypeUrl = TypeUrl::Cluster;
const EDS: TypeUrl = TypeUrl::Endpoint;

fn response(type_url: TypeUrl, nonce: &str, added: &[(&str, &str)], removed: &[&str]) -> DeltaDiscoveryResponse {
    DeltaDiscoveryResponse {
        type_url: type_url.as_str().into(),
        nonce: nonce.into(),
        resources: added
            .iter()
            .map(|(name, version)| discovery::Resource {
                name: (*name).into(),
                version: (*version).into(),
                resource: Some(Any { type_url: type_url.as_str().into(), value: vec![] }),
                ..Default::default()
            })
            .collect(),
        removed_resources: removed.iter().map(|name| name.to_string()).collect(),
        ..Default::default()
    }
}

fn names(names: &[&str]) -> Vec<Arc<str>> {
    names.iter().map(|name| Arc::from(*name)).collect()
}

fn opened() -> DeltaClient {
    let mut client = DeltaClient::new(Node { id: "me".into(), ..Default::default() });
    client.on_open();
    client
}

/// The request as text: `type subscribe unsubscribe nonce error versions node`, leaving out what is not there.
fn show(request: Option<DeltaDiscoveryRequest>) -> String {
    let Some(request) = request else { return "-".into() };
    let mut parts = vec![TypeUrl::parse(&request.type_url).unwrap().short().to_string()];
    parts.extend(request.resource_names_subscribe.iter().map(|name| format!("+{name}")));
    parts.extend(request.resource_names_unsubscribe.iter().map(|name| format!("-{name}")));
    if !request.response_nonce.is_empty() {
        parts.push(format!("nonce={}", request.response_nonce));
    }
    if let Some(error) = request.error_detail {
        parts.push(format!("error={}", error.message));
    }
    let versions: BTreeMap<_, _> = request.initial_resource_versions.into_iter().collect();
    parts.extend(versions.iter().map(|(name, version)| format!("{name}@{version}")));
    if let Some(node) = request.node {
        parts.push(format!("node={}", node.id));
    }
    parts.join(" ")
}

#[test]
fn nothing_is_said_before_the_stream_opens_or_without_interest() {
    let mut client = DeltaClient::new(Node::default());
    client.subscribe_all(CDS);
    assert_eq!(show(client.next_request()), "-");
    client.on_open();
    assert!(client.has_request());
    assert_eq!(show(client.next_request()), "cds node=");
    assert_eq!(show(client.next_request()), "-");
}

#[test]
fn the_node_goes_with_the_first_request_of_a_stream_only() {
    let mut client = opened();
    client.subscribe_all(CDS);
    client.subscribe(EDS, names(&["b", "a"]));
    assert_eq!(show(client.next_request()), "cds node=me");
    assert_eq!(show(client.next_request()), "eds +a +b");
    client.on_close();
    client.on_open();
    assert_eq!(show(client.next_request()), "cds node=me");
    assert_eq!(show(client.next_request()), "eds +a +b");
}

#[test]
fn an_answer_carries_the_nonce_and_changes_of_interest_ride_along() {
    let mut client = opened();
    client.subscribe(EDS, names(&["a", "b"]));
    client.next_request();
    let update = client.on_response(response(EDS, "1", &[("a", "v1")], &["b"])).unwrap();
    assert_eq!(update.removed, names(&["b"]));
    client.unsubscribe(EDS, names(&["b"]));
    client.subscribe(EDS, names(&["c"]));
    client.ack(update.receipt);
    assert_eq!(show(client.next_request()), "eds +c -b nonce=1");
    assert_eq!(show(client.next_request()), "-");
}

#[test]
fn a_reconnect_names_the_versions_that_were_taken() {
    let mut client = opened();
    client.subscribe_all(CDS);
    client.next_request();
    let first = client.on_response(response(CDS, "1", &[("a", "v1"), ("b", "v1"), ("c", "v1")], &[])).unwrap();
    client.nack(first.receipt, "cluster b: lb_policy".into(), &names(&["b"]));
    assert_eq!(show(client.next_request()), "cds nonce=1 error=cluster b: lb_policy");
    let second = client.on_response(response(CDS, "2", &[("a", "v2")], &["c"])).unwrap();
    let never_answered = client.on_response(response(CDS, "3", &[("d", "v1")], &[])).unwrap();
    client.ack(second.receipt);
    client.on_close();
    client.on_open();
    assert_eq!(show(client.next_request()), "cds a@v2 node=me");
    client.ack(never_answered.receipt);
    assert_eq!(show(client.next_request()), "-", "a nonce of another stream is not sent");
    client.on_close();
    client.on_open();
    assert_eq!(show(client.next_request()), "cds a@v2 d@v1 node=me", "but what was taken counts");
}

#[test]
fn an_update_refused_whole_leaves_what_was_held() {
    let mut client = opened();
    client.subscribe_all(CDS);
    client.next_request();
    let first = client.on_response(response(CDS, "1", &[("a", "v1")], &[])).unwrap();
    client.ack(first.receipt);
    let second = client.on_response(response(CDS, "2", &[("a", "v2")], &["a2"])).unwrap();
    client.nack(second.receipt, "no".into(), &[]);
    client.on_open();
    assert_eq!(show(client.next_request()), "cds a@v1 node=me");
}

#[test]
fn a_wildcard_beside_names_is_explicit() {
    let mut client = opened();
    client.subscribe(CDS, names(&["extra"]));
    client.subscribe_all(CDS);
    assert_eq!(show(client.next_request()), "cds +extra +* node=me");
    let mut client = opened();
    client.subscribe_all(CDS);
    client.next_request();
    client.subscribe(CDS, names(&["extra"]));
    assert_eq!(show(client.next_request()), "cds +extra");
}

#[test]
fn a_name_regained_is_asked_for_again() {
    let mut client = opened();
    client.subscribe(EDS, names(&["a"]));
    client.next_request();
    client.unsubscribe(EDS, names(&["a"]));
    client.subscribe(EDS, names(&["a"]));
    assert_eq!(show(client.next_request()), "eds +a");
}

#[test]
fn malformed_responses_are_refused_without_an_update() {
    let mut other_type = response(CDS, "1", &[("a", "v1")], &[]);
    other_type.resources[0].resource.as_mut().unwrap().type_url = EDS.as_str().into();
    let cases = [
        (response(CDS, "1", &[("a", "v1"), ("a", "v2")], &[]), "twice"),
        (response(CDS, "1", &[("a", "v1")], &["a"]), "both added and removed"),
        (response(CDS, "1", &[], &["a", "a"]), "removed twice"),
        (other_type, "in a response of"),
    ];
    for (bad, why) in cases {
        let mut client = opened();
        client.subscribe_all(CDS);
        client.next_request();
        assert!(client.on_response(bad).is_none());
        let answer = show(client.next_request());
        assert!(answer.starts_with("cds nonce=1 error=") && answer.contains(why), "{answer}");
    }
}

#[test]
fn what_was_not_asked_for_is_dropped() {
    let mut client = opened();
    client.subscribe(EDS, names(&["a"]));
    client.next_request();
    assert!(client.on_response(response(CDS, "1", &[("x", "v1")], &[])).is_none());
    assert!(
        client.on_response(DeltaDiscoveryResponse { type_url: "unheard/of".into(), ..Default::default() }).is_none()
    );
    let update = client.on_response(response(EDS, "1", &[("a", "v1"), ("x", "v1")], &[])).unwrap();
    assert_eq!(update.added.iter().map(|resource| &*resource.name).collect::<Vec<_>>(), ["a"]);
    client.ack(update.receipt);
    assert_eq!(show(client.next_request()), "eds nonce=1");
}

#[test]
fn a_long_reason_is_cut_at_a_character() {
    let cut = truncated("é".repeat(MAX_REASON));
    assert!(cut.len() <= MAX_REASON + '…'.len_utf8() && cut.ends_with("é…"), "{}", cut.len());
    assert_eq!(truncated("short".into()), "short");
}
