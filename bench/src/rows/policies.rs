//! From workload to workload with many policies: two sidecars, mutual TLS, 100 AuthorizationPolicies of 5 rules each. On
//! connections that stay, and with a handshake for each request.

use super::{Options, http1, sidecars};
use crate::contest::{self, Ratio, Report, Row, Wanted::AtMost};
use std::fmt::Write as _;

const POLICIES: usize = 100;
const RULES: usize = 5;
/// Of ten policies so many refuse.
const DENYING: usize = 3;

/// The service again, under a name whose connections serve one request each.
const ONCE: &str = "apiVersion: v1
kind: Service
metadata: {name: once, namespace: bench}
spec: {selector: {app: server}, ports: [{name: http, port: 9080}]}
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: once, namespace: bench}
spec: {host: once, trafficPolicy: {connectionPool: {http: {maxRequestsPerConnection: 1}}}}
";

pub(crate) fn run(o: &Options) -> anyhow::Result<Report> {
    let dir = tempfile::tempdir()?;
    let (contenders, secured) = sidecars::start(o, dir.path(), &format!("{ONCE}{}", policies()))?;
    let row = Row {
        title: format!(
            "sidecar to sidecar, {POLICIES} AuthorizationPolicies of {RULES} rules, access log and metrics on, both proxies summed, {} connections; {}",
            o.connections,
            secured.join(", ")
        ),
        columns: &[
            ("CPU µs/request", 1),
            ("requests/s", 0),
            ("p99 µs", 0),
            ("CPU µs/request with a handshake", 1),
            ("requests/s with handshakes", 0),
            ("RSS MB, both", 1),
            ("lost", 0),
        ],
        ratios: &[
            Ratio { column: 0, wanted: &[("envoy", AtMost(0.4))] },
            Ratio { column: 3, wanted: &[("envoy", AtMost(0.4))] },
        ],
    };
    contest::run(row, o.rounds, &contenders, |c| {
        let mut l = http1::args(o, c);
        l.host = "server:9080".into();
        let (lasting, lasting_cpu) = http1::measured(&l, c)?;
        l.host = "once:9080".into();
        let (once, once_cpu) = http1::measured(&l, c)?;
        Ok(vec![
            lasting_cpu,
            lasting.rate(),
            lasting.latency.quantile(0.99),
            once_cpu,
            once.rate(),
            c.rss(),
            (lasting.lost() + once.lost()) as f64,
        ])
    })
}

/// Policies as people write them, of which each request is looked for in all: nothing is refused, and the middle one of those
/// that allow has the rule that lets the load in.
fn policies() -> String {
    let mut text = String::new();
    for n in 0..POLICIES {
        let (action, allows) = if n % 10 < DENYING { ("DENY", false) } else { ("ALLOW", true) };
        let _ = write!(
            text,
            "---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {{name: policy-{n:03}, namespace: bench}}
spec:
  selector: {{matchLabels: {{app: server}}}}
  action: {action}
  rules:
"
        );
        for rule in 0..RULES {
            let (who, how, what) = match allows && n == POLICIES / 2 + 5 && rule == RULES / 2 {
                true => ("cluster.local/ns/bench/sa/default".to_owned(), "GET".to_owned(), "/*".to_owned()),
                false => (
                    format!("cluster.local/ns/team-{n}/sa/account-{rule}"),
                    if rule % 2 == 0 { "POST" } else { "DELETE" }.to_owned(),
                    format!("/api/v{rule}/team-{n}/*"),
                ),
            };
            let _ = write!(
                text,
                "  - from: [{{source: {{principals: [{who}, cluster.local/ns/other-{n}/sa/account-{rule}]}}}}]
    to: [{{operation: {{methods: [{how}, PATCH], paths: [\"{what}\", /static/{n}/{rule}]}}}}]
"
            );
            if rule % 2 == 1 {
                let _ =
                    writeln!(text, "    when: [{{key: 'request.headers[x-team]', values: [team-{n}, team-{rule}]}}]");
            }
        }
    }
    text
}
