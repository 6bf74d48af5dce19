//! Values in all their spellings, and the places of fields.

use crate::meta::Spec;
use crate::networking::VirtualService;
use crate::networking::virtual_service::{RedirectPort, StringMatch};
use crate::parse::tree::{File, Tree};
use crate::parse::{Parsed, documents, read};

fn virtual_service(spec: &str) -> VirtualService {
    let indented: String = spec.lines().map(|line| format!("  {line}\n")).collect();
    let text =
        format!("apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: x}}\nspec:\n{indented}");
    match documents(&text, "test").remove(0).map(|Parsed { object, .. }| object.spec) {
        Ok(Spec::VirtualService(spec)) => spec,
        other => panic!("{spec}: {other:?}"),
    }
}

#[test]
fn values_may_be_written_as_protobuf_and_yaml_allow() {
    let plain = "
http:
- match:
  - uri: {prefix: /a}
    headers: {x: {}}
    ignoreUriCase: true
    port: 80
  route:
  - destination: {host: a, port: {number: 8080}}
    weight: 100
  timeout: 90s
  mirrorPercentage: {value: 50}
  corsPolicy: {unmatchedPreflights: FORWARD, allowCredentials: false}";
    let spelled = [
        // Names as in the proto, numbers as texts and fractions, durations in Go's way, enum values by number.
        "
http:
- match:
  - uri: {\"prefix\": '/a'}
    headers: {x: {}}
    ignore_uri_case: yes
    port: 80.0
    source_labels: null
  route:
  - destination: {host: !!str a, subset: ~, port: {number: \"8080\"}}
    weight: 1e2
  timeout: 1m30s
  retries:
  mirror_percentage: {value: \"50\"}
  cors_policy: {unmatched_preflights: 1, allow_credentials: False}",
        // The same by anchors and merge keys.
        "
http:
- match:
  - &match
    <<: {port: 80, ignoreUriCase: false, uri: {prefix: /a}}
    ignoreUriCase: true
    headers: {x: {}}
  route:
  - destination: {<<: [{host: a}, {host: b, port: {number: 8080}}]}
    weight: 100
  timeout: 90000ms
  mirrorPercentage: {value: 5e1}
  corsPolicy: {unmatchedPreflights: FORWARD, allowCredentials: off}",
    ];
    for other in spelled {
        assert_eq!(virtual_service(other), virtual_service(plain));
    }
    let route = &virtual_service(plain).http[0];
    assert_eq!(route.r#match[0].headers["x"], StringMatch::Unset);
    assert_eq!(route.retries, None);
}

#[test]
fn a_oneof_is_whichever_member_is_there() {
    let redirect =
        |text: &str| virtual_service(&format!("http: [{{redirect: {text}}}]")).http[0].redirect.clone().unwrap();
    assert_eq!(redirect("{port: 80}").redirect_port, Some(RedirectPort::Port(80)));
    assert_eq!(redirect("{port: 0}").redirect_port, Some(RedirectPort::Port(0)));
    assert_eq!(
        redirect("{port: null, derivePort: 1}").redirect_port,
        Some(RedirectPort::DerivePort(crate::networking::virtual_service::RedirectPortSelection::FromRequestPort))
    );
    assert_eq!(redirect("{uri: /}").redirect_port, None);
}

#[test]
fn a_list_is_its_items() {
    let text = "
apiVersion: v1
kind: List
items:
- {apiVersion: v1, kind: Namespace, metadata: {name: a, namespace: ignored}}
- apiVersion: networking.istio.io/v1alpha3
  kind: GatewayList
  items:
  - {apiVersion: networking.istio.io/v1beta1, kind: Gateway, metadata: {name: b}}
  - {apiVersion: v1, kind: Service, metadata: {name: c, namespace: d}}
";
    let keys: Vec<_> = documents(text, "test")
        .into_iter()
        .map(|parsed| {
            parsed.map(|parsed| (parsed.object.key().to_string(), parsed.object.source.unwrap().line)).unwrap()
        })
        .collect();
    assert_eq!(keys, [("Namespace a".into(), 5), ("Gateway default/b".into(), 9), ("Service d/c".into(), 10)]);
}

#[test]
fn a_path_leads_to_its_field_or_what_is_around_it() {
    let text = "\
metadata:
  labels: {app.kubernetes.io/name: a, app: b}
spec:
  hosts: [a, bb]
  http:
  - name: one
    route:
    - destination:
        host: a
      weight: 5
    - destination: {host: b}
  export_to:
  - '*'
  empty:
";
    let file = File::new("test", text);
    let root = read::documents(&file).remove(0).unwrap();
    let tree = Tree { file, root, secret: false };
    for (path, line, column, end_column) in [
        ("", 1, 1, 9),
        ("metadata.labels.app", 2, 44, 45),
        ("metadata.labels.app.kubernetes.io/name", 2, 36, 37),
        ("metadata.labels[\"app.kubernetes.io/name\"]", 2, 36, 37),
        ("metadata.labels.absent", 2, 3, 9),
        ("metadata.labels[\"absent\"]", 2, 3, 9),
        ("spec", 3, 1, 5),
        ("spec.hosts", 4, 3, 8),
        ("spec.hosts[1]", 4, 14, 16),
        ("spec.hosts[2]", 4, 3, 8),
        ("spec.http[0]", 6, 5, 9),
        ("spec.http[0].route[0].weight", 10, 15, 16),
        ("spec.http[0].route[1].weight", 11, 7, 18),
        ("spec.http[0].route[0].destination.host", 9, 15, 16),
        ("spec.exportTo[0]", 13, 5, 8),
        ("spec.exportTo", 12, 3, 12),
        ("spec.empty", 14, 3, 8),
        ("spec.empty.further[3].down", 14, 3, 8),
        ("spec.http[x", 5, 3, 7),
        ("nonsense", 1, 1, 9),
    ] {
        let span = tree.locate(path);
        let found = (span.start.line, span.start.column, span.end.column);
        assert_eq!(found, (line, column, end_column), "{path}: {:?}", tree.file().line(span.start.line));
    }
}
