//! AuthorizationPolicies in, filters out: those that upstream's control plane made of the same policies.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use maille_api::parse;
use maille_model::{Locality, Proxy, ProxyKind, ProxyMetadata, Snapshot};
use maille_translate::translate;
use maille_xds::TypeUrl;
use maille_xds::json::Schema;
use maille_xds::types::Message;
use maille_xds::types::listener::Listener;
use serde_json::{Map, Value, json};

use crate::yaml;

/// What upstream's test gives the mesh beside the policies, by the name of the case.
const TRUST_DOMAINS: [(&str, &str); 4] = [
    ("simple-policy-td-aliases", "trustDomain: td1\ntrustDomainAliases: [cluster.local]\n"),
    ("simple-policy-multiple-td-aliases", "trustDomain: td1\ntrustDomainAliases: [cluster.local, some-td]\n"),
    ("simple-policy-principal-with-wildcard", "trustDomain: td1\ntrustDomainAliases: [foobar]\n"),
    ("td-aliases-source-principal", "trustDomain: new-td\ntrustDomainAliases: [old-td, some-trustdomain]\n"),
];

const HTTP_PROVIDER: &str = "
extensionProviders:
  - name: default
    envoyExtAuthzHttp:
      service: foo/my-custom-ext-authz.foo.svc.cluster.local
      port: 9000
      timeout: 10s
      failOpen: true
      statusOnError: '403'
      pathPrefix: /check
      includeRequestHeadersInCheck: [x-custom-id, x-prefix-*, '*-suffix']
      includeHeadersInCheck: [should-not-include-when-IncludeRequestHeadersInCheck-is-set]
      includeAdditionalHeadersInCheck: {x-header-1: value-1, x-header-2: value-2}
      includeRequestBodyInCheck: {maxRequestBytes: 2048, allowPartialMessage: true, packAsBytes: true}
      headersToUpstreamOnAllow: [Authorization, x-prefix-*, '*-suffix']
      headersToDownstreamOnDeny: [Set-cookie, x-prefix-*, '*-suffix']
      headersToDownstreamOnAllow: [Set-cookie, x-prefix-*, '*-suffix']
";

const GRPC_PROVIDER: &str = "
extensionProviders:
  - name: default
    envoyExtAuthzGrpc:
      service: foo/my-custom-ext-authz.foo.svc.cluster.local
      port: 9000
      failOpen: true
      statusOnError: '403'
";
const GRPC_PROVIDER_MORE: &str = "      timeout: 0.002s
      includeRequestBodyInCheck: {maxRequestBytes: 4096, allowPartialMessage: true}
";

const AUTHORIZER: &str = "
apiVersion: v1
kind: Service
metadata: {name: my-custom-ext-authz, namespace: foo}
spec: {ports: [{name: grpc, port: 9000}]}
";

#[test]
fn conformance_of_authorization_filters() {
    let Some(folder) = conformance() else { return };
    let (mut judged, mut wrong) = (0, Vec::new());
    for of in ["http", "tcp"] {
        for expected in outputs(&folder.join(of)) {
            let stem = expected.file_name().expect("name").to_string_lossy().into_owned();
            let Some((name, index)) = name_and_index(&stem) else { continue };
            // How hosts were matched by proxies of long ago.
            if name == "allow-host-before-111" {
                continue;
            }
            let custom = name.starts_with("custom-");
            let input = folder.join(of).join(match custom {
                true => "custom-simple-http-in.yaml".to_owned(),
                false => format!("{name}-in.yaml"),
            });
            if !input.exists() {
                continue;
            }
            judged += 1;
            let mesh = match name {
                "custom-http-provider" => HTTP_PROVIDER.to_owned(),
                "custom-grpc-provider" => format!("{GRPC_PROVIDER}{GRPC_PROVIDER_MORE}"),
                "custom-grpc-provider-no-namespace" => GRPC_PROVIDER.replace("foo/my", "my"),
                _ => TRUST_DOMAINS.iter().find(|(case, _)| *case == name).map_or("", |(_, mesh)| mesh).to_owned(),
            };
            let policies = fs::read_to_string(&input).expect("policies");
            let filters = filters(&format!("{policies}\n---{AUTHORIZER}"), &mesh, of == "http");
            let theirs = normal(&yaml::read(&fs::read_to_string(&expected).expect("filter")));
            let ours = filters.get(index).map(normal).unwrap_or_default();
            if ours != theirs {
                let print = |value: &Value| serde_json::to_string_pretty(value).expect("JSON");
                wrong.push(format!("{of}/{stem}\n{}", difference(&print(&theirs), &print(&ours))));
            }
        }
    }
    assert!(judged > 15, "only {judged} cases in {}", folder.display());
    assert!(wrong.is_empty(), "{} of {judged} differ:\n{}", wrong.len(), wrong.join("\n\n"));
}

fn conformance() -> Option<PathBuf> {
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/conformance");
    let folder = std::env::var_os("CONFORMANCE").map_or(beside, PathBuf::from).join("authz");
    if folder.is_dir() {
        return Some(folder);
    }
    eprintln!("skipped: no conformance data at {}", folder.display());
    None
}

fn outputs(folder: &Path) -> Vec<PathBuf> {
    let files = fs::read_dir(folder).expect("folder").map(|entry| entry.expect("entry").path());
    let mut files: Vec<PathBuf> = files.filter(|path| path.to_string_lossy().contains("-out")).collect();
    files.sort();
    files
}

/// `NAME-out2.yaml` is the second filter of the case NAME.
fn name_and_index(file: &str) -> Option<(&str, usize)> {
    let (name, number) = file.strip_suffix(".yaml")?.rsplit_once("-out")?;
    Some((name, number.parse::<usize>().map_or(0, |number| number - 1)))
}

/// The filters of an inbound chain that enforce policies.
fn filters(yaml: &str, mesh: &str, http: bool) -> Vec<Value> {
    let objects: Vec<_> = parse::documents(yaml, "case")
        .into_iter()
        .map(|parsed| Arc::new(parsed.unwrap_or_else(|diagnostic| panic!("{diagnostic}")).object))
        .collect();
    let (mesh, problems) = parse::mesh_config(mesh, "mesh");
    let mesh = mesh.unwrap_or_else(|| panic!("{problems:?}"));
    let labels = [("app", "httpbin"), ("version", "v1")].map(|(name, value)| (name.to_owned(), value.to_owned()));
    let proxy = Proxy {
        kind: ProxyKind::Sidecar,
        id: "httpbin.foo".to_owned(),
        ip_addresses: vec!["10.0.0.1".to_owned()],
        namespace: "foo".to_owned(),
        service_account: String::new(),
        labels: BTreeMap::from(labels),
        dns_domain: "foo.svc.cluster.local".to_owned(),
        locality: Locality::default(),
        network: String::new(),
        cluster_id: String::new(),
        metadata: ProxyMetadata::default(),
    };
    let world = translate(&Snapshot::build(&objects, &mesh), &proxy);
    let listener = world.get(TypeUrl::Listener, "virtualInbound").expect("the inbound listener");
    let listener: Listener = listener.decode().expect("listener");
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

/// Names in one style, and nothing that is as it is by default.
fn normal(value: &Value) -> Value {
    match value {
        Value::Object(fields) => {
            let mut out = Map::new();
            for (name, value) in fields {
                let value = normal(value);
                let empty = match &value {
                    // Rules that are there and empty allow nothing.
                    Value::Object(fields) => fields.is_empty() && !name.to_lowercase().ends_with("rules"),
                    value => [json!(""), json!(false), json!(0), json!([]), Value::Null].contains(value),
                };
                // Envoy's defaults, which upstream writes out and protobuf does not.
                let default = matches!((name.as_str(), value.as_str()), ("action", Some("ALLOW")));
                if !empty && !default {
                    out.insert(camel_case(name), value);
                }
            }
            // Upstream writes the prefix of rules that there are none of.
            if !out.contains_key("shadowRules") {
                out.remove("shadowRulesStatPrefix");
            }
            Value::Object(out)
        }
        Value::Array(items) => Value::Array(items.iter().map(normal).collect()),
        Value::Number(number) => json!(number.to_string()),
        other => other.clone(),
    }
}

/// Names of policies are left as they are: they have brackets.
fn camel_case(name: &str) -> String {
    if name.contains('[') || name.contains('-') {
        return name.to_owned();
    }
    let mut parts = name.split('_');
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |name, part| {
        let mut letters = part.chars();
        let capital = letters.next().map(|letter| letter.to_ascii_uppercase());
        name + &capital.into_iter().chain(letters).collect::<String>()
    })
}

fn difference(theirs: &str, ours: &str) -> String {
    let (theirs, ours): (Vec<&str>, Vec<&str>) = (theirs.lines().collect(), ours.lines().collect());
    let first = theirs.iter().zip(&ours).position(|(a, b)| a != b).unwrap_or(theirs.len().min(ours.len()));
    let near =
        |lines: &[&str]| lines[first.saturating_sub(6).min(lines.len())..(first + 6).min(lines.len())].join("\n");
    format!("theirs, around line {first}:\n{}\nours:\n{}", near(&theirs), near(&ours))
}
