//! Upstream's policy sets: AuthorizationPolicies, what the mesh has beside them, and the filters they must become.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

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

/// The authorizer that the providers name.
pub(crate) const AUTHORIZER: &str = "
apiVersion: v1
kind: Service
metadata: {name: my-custom-ext-authz, namespace: foo}
spec: {ports: [{name: grpc, port: 9000}]}
";

/// Policies, and the filters they must become.
pub(crate) struct Set {
    /// `http/NAME`, `tcp/NAME`.
    pub(crate) name: String,
    /// Whether they guard HTTP.
    pub(crate) http: bool,
    /// The policies, as YAML.
    pub(crate) policies: String,
    /// The mesh's settings, as YAML.
    pub(crate) mesh: String,
    /// The filters, in order, as YAML.
    pub(crate) expected: Vec<String>,
}

/// Every set; none, said plainly, without upstream's data.
pub(crate) fn all() -> Vec<Set> {
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/conformance");
    let folder = std::env::var_os("CONFORMANCE").map_or(beside, PathBuf::from).join("authz");
    if !folder.is_dir() {
        eprintln!("skipped: no conformance data at {}", folder.display());
        return Vec::new();
    }
    let mut sets: Vec<Set> = Vec::new();
    for of in ["http", "tcp"] {
        for path in outputs(&folder.join(of)) {
            let stem = path.file_name().expect("name").to_string_lossy().into_owned();
            let Some((name, _)) = stem.strip_suffix(".yaml").and_then(|stem| stem.rsplit_once("-out")) else {
                continue;
            };
            // How hosts were matched by proxies of long ago.
            if name == "allow-host-before-111" {
                continue;
            }
            let input = match name.starts_with("custom-") {
                true => "custom-simple-http-in.yaml".to_owned(),
                false => format!("{name}-in.yaml"),
            };
            let Ok(policies) = fs::read_to_string(folder.join(of).join(input)) else { continue };
            let filter = fs::read_to_string(&path).expect("filter");
            let name = format!("{of}/{name}");
            match sets.last_mut().filter(|last| last.name == name) {
                Some(last) => last.expected.push(filter),
                None => {
                    let mesh = mesh(&name[of.len() + 1..]);
                    sets.push(Set { http: of == "http", policies, mesh, expected: vec![filter], name });
                }
            }
        }
    }
    sets
}

fn mesh(name: &str) -> String {
    match name {
        "custom-http-provider" => HTTP_PROVIDER.to_owned(),
        "custom-grpc-provider" => format!("{GRPC_PROVIDER}{GRPC_PROVIDER_MORE}"),
        "custom-grpc-provider-no-namespace" => GRPC_PROVIDER.replace("foo/my", "my"),
        _ => TRUST_DOMAINS.iter().find(|(case, _)| *case == name).map_or("", |(_, mesh)| mesh).to_owned(),
    }
}

/// Of several filters of a case, `NAME-out2.yaml` is the second.
fn outputs(folder: &Path) -> Vec<PathBuf> {
    let files = fs::read_dir(folder).expect("folder").map(|entry| entry.expect("entry").path());
    let mut files: Vec<PathBuf> = files.filter(|path| path.to_string_lossy().contains("-out")).collect();
    files.sort();
    files
}

/// A filter's JSON with names in one style, and nothing that is as it is by default.
pub(crate) fn normal(value: &Value) -> Value {
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
