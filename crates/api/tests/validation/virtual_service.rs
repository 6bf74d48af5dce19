//! VirtualService: hosts, gateways, HTTP routes, TLS and TCP.

use super::{check, check_with};

const ROUTE: &str = "route: [{destination: {host: a}}]";

fn http(rest: &str) -> String {
    format!("{{hosts: [a.com], http: [{{{rest}}}]}}")
}

fn routed(rest: &str) -> String {
    http(&format!("{ROUTE}, {rest}"))
}

#[test]
fn hosts_and_gateways() {
    let hosts =
        |hosts: &str, gateways: &str| format!("{{hosts: [{hosts}], gateways: [{gateways}], http: [{{{ROUTE}}}]}}");
    check(
        "VirtualService",
        &[
            (&hosts("a, b.com, 10.0.0.1, '*.c.com'", ""), &[]),
            (&hosts("'*'", ""), &["error spec.hosts[0]"]),
            (&hosts("'*'", "mesh, ns/gw"), &["error spec.hosts[0]"]),
            (&hosts("'*'", "ns/gw"), &[]),
            (&hosts("a_b", ""), &["error spec.hosts[0]"]),
            (&hosts("'*.com', a.com", ""), &["error spec.hosts[1]"]),
            (&hosts("'*.b.com', '*.com'", ""), &["error spec.hosts[1]"]),
            (&hosts("a.com, b.com", ""), &[]),
            (&hosts("a.com", "gw.ns.svc.cluster.local"), &["warn spec.gateways[0]"]),
            (&hosts("a.com", "ns/gw.dot"), &["error spec.gateways[0]"]),
            (&hosts("a.com", "ns/"), &["error spec.gateways[0]"]),
            ("{hosts: [a.com]}", &["error spec"]),
            (
                "{hosts: [a.com], http: [{route: [{destination: {host: a}}]}], exportTo: ['~']}",
                &["error spec.exportTo[0]"],
            ),
        ],
    );
}

#[test]
fn delegates() {
    check(
        "VirtualService",
        &[
            (&format!("{{http: [{{{ROUTE}}}]}}"), &[]),
            ("{http: [{delegate: {name: a}}]}", &["error spec.http[0].delegate", "error spec.http[0]"]),
            (&http("delegate: {name: a}"), &[]),
            (&routed("delegate: {name: a}"), &["error spec.http[0].route"]),
            (
                &format!("{{gateways: [ns/gw], http: [{{{ROUTE}}}], tcp: [{{{ROUTE}}}]}}"),
                &["error spec.gateways", "error spec.tcp"],
            ),
        ],
    );
}

#[test]
fn a_route_does_one_thing() {
    check(
        "VirtualService",
        &[
            (&http("match: [{uri: {prefix: /a}}]"), &["error spec.http[0]"]),
            (&routed("redirect: {uri: /}"), &["error spec.http[0].route"]),
            (
                &http(
                    "redirect: {uri: /}, rewrite: {uri: /}, fault: {abort: {httpStatus: 500}}, directResponse: {status: 200}",
                ),
                &["error spec.http[0].fault", "error spec.http[0].rewrite", "error spec.http[0].directResponse"],
            ),
            (&routed("directResponse: {status: 200}"), &["error spec.http[0].route"]),
            (&routed("mirror: {host: b}, mirrors: [{destination: {host: c}}]"), &["error spec.http[0].mirror"]),
        ],
    );
}

#[test]
fn destinations() {
    let route = |route: &str| http(&format!("route: [{route}]"));
    check(
        "VirtualService",
        &[
            (&route("{destination: {host: a, subset: v1, port: {number: 80}}, weight: 10}"), &[]),
            (&route("{}"), &["error spec.http[0].route[0].destination"]),
            (&route("{destination: {}}"), &["error spec.http[0].route[0].destination.host"]),
            (&route("{destination: {host: '*'}}"), &["error spec.http[0].route[0].destination.host"]),
            (&route("{destination: {host: a, subset: v.1}}"), &["error spec.http[0].route[0].destination.subset"]),
            (&route("{destination: {host: a, port: {}}}"), &["error spec.http[0].route[0].destination.port.number"]),
            (&route("{destination: {host: a}, weight: -1}"), &["error spec.http[0].route[0].weight"]),
            (&route("{destination: {host: a}}, {destination: {host: b}}"), &["error spec.http[0].route"]),
            (&route("{destination: {host: a}, weight: 300}, {destination: {host: b}}"), &[]),
        ],
    );
    let made = "metadata: {name: a, namespace: b, annotations: {internal.istio.io/route-semantics: gateway}}";
    check_with("VirtualService", made, &[(&route("{destination: {host: '~'}}"), &[])]);
}

#[test]
fn redirects_rewrites_and_answers() {
    check(
        "VirtualService",
        &[
            (&http("redirect: {uri: /b, scheme: https, port: 443, redirectCode: 308}"), &[]),
            (&http("redirect: {derivePort: FROM_REQUEST_PORT}"), &[]),
            (&http("redirect: {}"), &["error spec.http[0].redirect"]),
            (&http("redirect: {redirectCode: 302}"), &["error spec.http[0].redirect"]),
            (&http("redirect: {uri: /, redirectCode: 200}"), &["error spec.http[0].redirect.redirectCode"]),
            (&http("redirect: {uri: /, scheme: ftp}"), &["error spec.http[0].redirect.scheme"]),
            (&http("redirect: {uri: /, port: 70000}"), &["error spec.http[0].redirect.port"]),
            (&http("redirect: {uri: /, prefixRewrite: /}"), &["error spec.http[0].redirect.prefixRewrite"]),
            (
                &http("match: [{uri: {exact: /}}], redirect: {prefixRewrite: /}"),
                &["error spec.http[0].redirect.prefixRewrite"],
            ),
            (&http("match: [{uri: {prefix: /}}, {port: 80}], redirect: {prefixRewrite: /}"), &[]),
            (&routed("rewrite: {}"), &["error spec.http[0].rewrite"]),
            (&routed("rewrite: {uriRegexRewrite: {match: '^/(.*)$', rewrite: '/\\1'}}"), &[]),
            (
                &routed("rewrite: {uri: /, uriRegexRewrite: {match: '(', rewrite: ''}}"),
                &[
                    "error spec.http[0].rewrite.uriRegexRewrite",
                    "error spec.http[0].rewrite.uriRegexRewrite.match",
                    "error spec.http[0].rewrite.uriRegexRewrite.rewrite",
                ],
            ),
            (&http("directResponse: {status: 503, body: {string: sorry}}"), &[]),
            (&http("directResponse: {status: 100}"), &["error spec.http[0].directResponse.status"]),
            (
                &http(&format!("directResponse: {{status: 200, body: {{string: {}}}}}", "x".repeat(100 * 1024 + 1))),
                &["warn spec.http[0].directResponse.body"],
            ),
            (
                &http(&format!("directResponse: {{status: 200, body: {{string: {}}}}}", "x".repeat(1024 * 1024 + 1))),
                &["error spec.http[0].directResponse.body"],
            ),
        ],
    );
}

#[test]
fn faults_retries_and_mirrors() {
    check(
        "VirtualService",
        &[
            (&routed("timeout: 0s"), &["error spec.http[0].timeout"]),
            (&routed("fault: {}"), &["error spec.http[0].fault"]),
            (&routed("fault: {delay: {fixedDelay: 1s, percentage: {value: 0.0001}}}"), &[]),
            (
                &routed("fault: {delay: {exponentialDelay: 1s, percentage: {value: 0.00001}}, abort: {http2Error: a}}"),
                &[
                    "error spec.http[0].fault.abort.http2Error",
                    "error spec.http[0].fault.delay.percentage.value",
                    "error spec.http[0].fault.delay.exponentialDelay",
                ],
            ),
            (&routed("fault: {abort: {grpcStatus: NOT_FOUND}}"), &[]),
            (&routed("fault: {abort: {grpcStatus: '5'}}"), &["error spec.http[0].fault.abort.grpcStatus"]),
            (&routed("fault: {abort: {httpStatus: 199}}"), &["error spec.http[0].fault.abort.httpStatus"]),
            (&routed("retries: {attempts: 3, retryOn: '5xx,503,cancelled', perTryTimeout: 1s}"), &[]),
            (&routed("retries: {attempts: 0}"), &[]),
            (&routed("retries: {retryOn: 5xx}"), &["error spec.http[0].retries.attempts"]),
            (&routed("retries: {attempts: -1}"), &["error spec.http[0].retries.attempts"]),
            (&routed("retries: {attempts: 1, retryOn: '5xx, 503'}"), &["error spec.http[0].retries.retryOn"]),
            (&routed("retries: {attempts: 1, retryOn: '599'}"), &["error spec.http[0].retries.retryOn"]),
            (&routed("retries: {attempts: 1, backoff: 0s}"), &["error spec.http[0].retries.backoff"]),
            (&routed("mirror: {host: b}, mirrorPercentage: {value: 0.1}"), &[]),
            (
                &routed("mirror: {host: b}, mirrorPercentage: {value: -1}"),
                &["error spec.http[0].mirrorPercentage.value"],
            ),
            (
                &routed("mirror: {host: b}, mirrorPercent: 101"),
                &["error spec.http[0].mirrorPercent", "warn spec.http[0].mirrorPercent"],
            ),
            (
                &routed("mirrors: [{}, {destination: {host: b}, percentage: {value: 101}}]"),
                &["error spec.http[0].mirrors[0].destination", "error spec.http[0].mirrors[1].percentage.value"],
            ),
        ],
    );
}

#[test]
fn headers_and_cors() {
    let at = "error spec.http[0].headers";
    check(
        "VirtualService",
        &[
            (&routed("headers: {request: {set: {':authority': b.com, x-a: '%REQ(x)%'}, remove: [x-b]}}"), &[]),
            (&routed("headers: {request: {add: {':path': /}}}"), &[&format!("{at}.request.add[\":path\"]")]),
            (&routed("headers: {request: {remove: [host]}}"), &[&format!("{at}.request.remove[0]")]),
            (&routed("headers: {response: {set: {Host: a}}}"), &[&format!("{at}.response.set[\"Host\"]")]),
            (&routed("headers: {response: {add: {x: 50%}}}"), &[&format!("{at}.response.add[\"x\"]")]),
            (&routed("headers: {response: {add: {x: '%A(%'}}}"), &[&format!("{at}.response.add[\"x\"]")]),
            (&routed("headers: {response: {add: {x: \"a\\u0001\"}}}"), &[&format!("{at}.response.add[\"x\"]")]),
            (
                &routed("rewrite: {authority: b}, headers: {request: {set: {host: c}}}"),
                &[&format!("{at}.request.set[\"host\"]")],
            ),
            (
                &routed("headers: {request: {set: {host: c}, add: {':authority': d}}}"),
                &[&format!("{at}.request.add[\":authority\"]")],
            ),
            (&routed("corsPolicy: {allowOrigins: [{exact: '*'}, {regex: '.*'}], allowMethods: [GET, '*']}"), &[]),
            (
                &routed("corsPolicy: {allowOrigins: [{}, {regex: '['}], allowMethods: [get], exposeHeaders: ['a b']}"),
                &[
                    "error spec.http[0].corsPolicy.allowOrigins[0]",
                    "error spec.http[0].corsPolicy.allowOrigins[1]",
                    "error spec.http[0].corsPolicy.allowMethods[0]",
                    "error spec.http[0].corsPolicy.exposeHeaders[0]",
                ],
            ),
            (&routed("corsPolicy: {maxAge: 1500ms}"), &["error spec.http[0].corsPolicy.maxAge"]),
        ],
    );
}

#[test]
fn matches() {
    let found = |found: &str| routed(&format!("match: [{{{found}}}]"));
    let at = "error spec.http[0].match[0]";
    check(
        "VirtualService",
        &[
            (&found("uri: {regex: '/users/[0-9]+'}, headers: {x-a: {}, ':method': {exact: GET}}"), &[]),
            (&found("uri: {prefix: ''}"), &[]),
            (&found("method: {prefix: ''}"), &[&format!("{at}.method.prefix")]),
            (&found("uri: {regex: '(?=a)'}"), &[&format!("{at}.uri.regex")]),
            (&found(&format!("uri: {{regex: {}}}", "a".repeat(1025))), &[&format!("{at}.uri.regex")]),
            (&found("headers: {'x y': {exact: a}}"), &[&format!("{at}.headers[\"x y\"]")]),
            (&found("withoutHeaders: {x: {regex: '*'}}"), &[]),
            (&found("headers: {x: {regex: '*'}}"), &[&format!("{at}.headers[\"x\"].regex")]),
            (
                &found("port: 70000, sourceNamespace: a.b, sourceLabels: {a: '*'}"),
                &[&format!("{at}.port"), &format!("{at}.sourceLabels[\"a\"]"), &format!("{at}.sourceNamespace")],
            ),
            (&found("gateways: [gw.ns]"), &[]),
            (
                &found("headers: {'@request.auth.claims.group': {exact: a}}"),
                &[&format!("{at}.headers[\"@request.auth.claims.group\"]")],
            ),
            (
                "{hosts: [a.com], gateways: [ns/gw], http: [{match: [{headers: {'@request.auth.claims[a]': {exact: b}}}], \
                 route: [{destination: {host: a}}]}]}",
                &[],
            ),
        ],
    );
}

#[test]
fn unreachable_rules_are_pointed_out() {
    let rules = |rules: &[&str]| {
        let rules: Vec<String> = rules.iter().map(|found| format!("{{match: [{found}], {ROUTE}}}")).collect();
        format!("{{hosts: [a.com], http: [{}]}}", rules.join(", "))
    };
    let (all, a, ab) = ("", "{uri: {prefix: /a}}", "{uri: {prefix: /ab}}");
    check(
        "VirtualService",
        &[
            (&rules(&[ab, a, all]), &[]),
            (&rules(&[all, a]), &["warn spec.http[1]"]),
            (&rules(&[all, all]), &["warn spec.http[1]"]),
            (&rules(&[a, "{name: x, uri: {prefix: /a}}"]), &["warn spec.http[1].match[0]", "warn spec.http[1]"]),
            (&rules(&[a, &format!("{a}, {{port: 80}}")]), &["warn spec.http[1].match[0]"]),
            (&rules(&[a, ab]), &["warn spec.http[1].match[0]"]),
            (&rules(&[a, "{uri: {prefix: /ab}, method: {exact: GET}}"]), &["warn spec.http[1].match[0]"]),
            (&rules(&[a, "{uri: {prefix: /ab}, method: {exact: POST}}"]), &[]),
            (&rules(&[a, "{uri: {prefix: /ab}, port: 80}"]), &[]),
            (&rules(&[a, "{uri: {prefix: /ab}, headers: {x: {exact: b}}}"]), &[]),
            (&rules(&[a, "{uri: {exact: /ab}}"]), &[]),
            (
                "{hosts: [a.com], tcp: [{match: [{port: 1}], route: [{destination: {host: a}}]}, \
                 {match: [{port: 1}], route: [{destination: {host: a}}]}]}",
                &["warn spec.tcp[1].match[0]", "warn spec.tcp[1]"],
            ),
        ],
    );
}

#[test]
fn tls_and_tcp_routes() {
    let tls = |found: &str| format!("{{hosts: ['*.a.com'], tls: [{{match: [{{{found}}}], {ROUTE}}}]}}");
    let tcp = |found: &str| format!("{{hosts: [a.com], tcp: [{{match: [{{{found}}}], {ROUTE}}}]}}");
    check(
        "VirtualService",
        &[
            (&tls("sniHosts: [b.a.com, '*.b.a.com'], destinationSubnets: [10.0.0.0/8]"), &[]),
            (&tls("port: 80"), &["error spec.tls[0].match[0].sniHosts"]),
            (&tls("sniHosts: [a.com]"), &["error spec.tls[0].match[0].sniHosts[0]"]),
            (&tls("sniHosts: [10.0.0]"), &["error spec.tls[0].match[0].sniHosts[0]"]),
            (
                &tls("sniHosts: [10.0.0.1, '::1']"),
                &["warn spec.tls[0].match[0].sniHosts[0]", "warn spec.tls[0].match[0].sniHosts[1]"],
            ),
            (&tls("sniHosts: [b.a.com], gateways: [gw.ns]"), &["warn spec.tls[0].match[0].gateways[0]"]),
            ("{hosts: [a.com], tls: [{}]}", &["error spec.tls[0].match", "error spec.tls[0].route"]),
            (
                "{hosts: [outbound_.80_._.a.com], gateways: [ns/gw], tls: [{match: [{sniHosts: [outbound_.80_._.a.com]}], \
                 route: [{destination: {host: a}}]}]}",
                &[],
            ),
            (&tcp("port: 80, destinationSubnets: [10.0.0.1], sourceLabels: {a: b}"), &[]),
            (
                &tcp("port: 70000, destinationSubnets: [a], sourceLabels: {a: '*'}, gateways: [a_b]"),
                &[
                    "error spec.tcp[0].match[0].destinationSubnets[0]",
                    "error spec.tcp[0].match[0].port",
                    "error spec.tcp[0].match[0].sourceLabels[\"a\"]",
                    "error spec.tcp[0].match[0].gateways[0]",
                ],
            ),
            ("{hosts: [a.com], tcp: [{}]}", &["error spec.tcp[0].route"]),
        ],
    );
}
