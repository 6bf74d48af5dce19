//! PeerAuthentication, RequestAuthentication and AuthorizationPolicy.

use super::{check, check_with};

#[test]
fn peer_authentications() {
    check(
        "PeerAuthentication",
        &[
            ("{}", &[]),
            ("{mtls: {mode: STRICT}}", &[]),
            ("{selector: {}}", &["warn spec.selector"]),
            ("{selector: {matchLabels: {app: a}}, portLevelMtls: {80: {mode: DISABLE}}}", &[]),
            ("{portLevelMtls: {80: {}}}", &["error spec.portLevelMtls"]),
            (
                "{selector: {matchLabels: {'a*': b}}, portLevelMtls: {0: {}, 65536: {}}}",
                &[
                    r#"error spec.selector.matchLabels["a*"]"#,
                    r#"error spec.portLevelMtls["0"]"#,
                    r#"error spec.portLevelMtls["65536"]"#,
                ],
            ),
        ],
    );
}

#[test]
fn request_authentications() {
    let rule = |rule: &str| format!("{{jwtRules: [{{issuer: a, {rule}}}]}}");
    check(
        "RequestAuthentication",
        &[
            ("{}", &[]),
            (&rule("jwksUri: 'https://a.com:8443/keys?x=1'"), &[]),
            (&rule("jwksUri: 'http://[::1]:80/keys'"), &[]),
            (&rule("jwksUri: 'ftp://a.com'"), &["error spec.jwtRules[0].jwksUri"]),
            (&rule("jwksUri: 'https://'"), &["error spec.jwtRules[0].jwksUri"]),
            (&rule("jwksUri: 'https://a.com:x'"), &["error spec.jwtRules[0].jwksUri"]),
            (&rule("jwksUri: 'https://a.com', jwks: '{\"keys\": []}'"), &["error spec.jwtRules[0].jwks"]),
            (&rule("jwks: '{\"keys\": [{\"kty\": \"EC\", \"crv\": \"P-256\", \"x\": \"YQ\", \"y\": \"YQ\"}]}'"), &[]),
            (&rule("jwks: '{\"kty\": \"RSA\", \"n\": \"YQ\", \"e\": \"AQAB\"}'"), &[]),
            (
                &rule("jwks: '{\"keys\": [{\"kty\": \"RSA\", \"n\": \"YQ\", \"e\": \"AQAB\", \"d\": \"YQ\"}]}'"),
                &["warn spec.jwtRules[0].jwks"],
            ),
            (&rule("jwks: '{\"keys\": [{\"kty\": \"oct\", \"k\": \"YQ\"}]}'"), &["warn spec.jwtRules[0].jwks"]),
            (
                &rule("jwks: '{\"keys\": [{\"kty\": \"RSA\", \"n\": \"!\", \"e\": \"a\"}]}'"),
                &["error spec.jwtRules[0].jwks"],
            ),
            (&rule("jwks: '{\"keys\": [{\"kty\": \"none\"}]}'"), &["error spec.jwtRules[0].jwks"]),
            (&rule("jwks: 'keys'"), &["error spec.jwtRules[0].jwks"]),
            (&rule("audiences: ['']"), &["error spec.jwtRules[0].audiences[0]"]),
            (&rule("timeout: 0s"), &["error spec.jwtRules[0].timeout"]),
            (&rule("spaceDelimitedClaims: [a, '']"), &["error spec.jwtRules[0].spaceDelimitedClaims[1]"]),
            (
                &rule("outputClaimToHeaders: [{header: ':path', claim: a}, {header: x}]"),
                &[
                    "error spec.jwtRules[0].outputClaimToHeaders[0].header",
                    "error spec.jwtRules[0].outputClaimToHeaders[1].claim",
                ],
            ),
            ("{selector: {matchLabels: {a: b}}, targetRef: {kind: Service, name: a}}", &["error spec"]),
            (
                "{targetRefs: [{kind: Pod, name: a}, {group: gateway.networking.k8s.io, kind: Gateway}]}",
                &["error spec.targetRefs[0].kind", "error spec.targetRefs[1].name"],
            ),
        ],
    );
}

#[test]
fn authorization_policies() {
    let source = |source: &str| format!("{{rules: [{{from: [{{source: {{{source}}}}}]}}]}}");
    let operation = |operation: &str| format!("{{rules: [{{to: [{{operation: {{{operation}}}}}]}}]}}");
    let when = |when: &str| format!("{{rules: [{{when: [{{{when}}}]}}]}}");
    let custom = |rule: &str| format!("{{action: CUSTOM, provider: {{name: p}}, rules: [{rule}]}}");
    check(
        "AuthorizationPolicy",
        &[
            ("{}", &[]),
            ("{rules: [{}]}", &[]),
            ("{action: DENY}", &["error spec.rules"]),
            ("{action: CUSTOM, provider: {name: p}}", &["error spec.rules"]),
            ("{action: CUSTOM, rules: [{}]}", &["error spec.provider.name"]),
            ("{provider: {name: p}, rules: [{}]}", &["error spec.provider"]),
            (&custom("{to: [{operation: {paths: [/a]}}]}"), &[]),
            (
                &custom("{from: [{source: {principals: [a]}}], when: [{key: 'request.auth.claims[a]', values: [b]}]}"),
                &["error spec.rules[0].from[0].source.principals", "error spec.rules[0].when[0].key"],
            ),
            (
                "{rules: [{from: [{}], to: [{}]}]}",
                &["error spec.rules[0].from[0].source", "error spec.rules[0].to[0].operation"],
            ),
            (&source(""), &["error spec.rules[0].from[0].source"]),
            (&operation(""), &["error spec.rules[0].to[0].operation"]),
            (&source("ipBlocks: [1.2.3.4, 10.0.0.0/8, '::/0']"), &[]),
            (
                &source("notIpBlocks: [1.2.3, 1.2.3.4/33]"),
                &[
                    "error spec.rules[0].from[0].source.notIpBlocks[0]",
                    "error spec.rules[0].from[0].source.notIpBlocks[1]",
                ],
            ),
            (&source("serviceAccounts: [a, b/c]"), &[]),
            (
                &source("serviceAccounts: ['*', a/b/c, /a]"),
                &[
                    "error spec.rules[0].from[0].source.serviceAccounts[0]",
                    "error spec.rules[0].from[0].source.serviceAccounts[1]",
                    "error spec.rules[0].from[0].source.serviceAccounts[2]",
                ],
            ),
            (&source("serviceAccounts: [a], namespaces: [b]"), &["error spec.rules[0].from[0].source.serviceAccounts"]),
            (&source("trustDomains: ['*', 'a*', '*a', a]"), &[]),
            (
                &source("trustDomains: ['a*b', '**', a/b]"),
                &[
                    "error spec.rules[0].from[0].source.trustDomains[0]",
                    "error spec.rules[0].from[0].source.trustDomains[1]",
                    "error spec.rules[0].from[0].source.trustDomains[2]",
                ],
            ),
            (&operation("ports: ['0', '65535', '080']"), &[]),
            (
                &operation("ports: ['65536', http, '']"),
                &[
                    "error spec.rules[0].to[0].operation.ports[0]",
                    "error spec.rules[0].to[0].operation.ports[1]",
                    "error spec.rules[0].to[0].operation.ports[2]",
                ],
            ),
            (&operation("paths: ['/a*', '*', '/{*}/b', '/a/{**}', '/{**}/b']"), &[]),
            (
                &operation("paths: ['/{**}/{*}', '/a{*}', '/{a}', '/{*}/a*', '/{*}//a']"),
                &[
                    "error spec.rules[0].to[0].operation.paths[0]",
                    "error spec.rules[0].to[0].operation.paths[1]",
                    "error spec.rules[0].to[0].operation.paths[2]",
                    "error spec.rules[0].to[0].operation.paths[3]",
                    "error spec.rules[0].to[0].operation.paths[4]",
                ],
            ),
            (&when("key: 'request.headers[a]', values: [b]"), &[]),
            (&when("key: request.headers, values: [b]"), &["error spec.rules[0].when[0].key"]),
            (&when("key: 'request.headers[]', values: [b]"), &["error spec.rules[0].when[0].key"]),
            (&when("key: destination.name, values: [b]"), &["error spec.rules[0].when[0].key"]),
            (&when("key: source.ip"), &["error spec.rules[0].when[0]"]),
            (&when("key: source.ip, values: [a]"), &["error spec.rules[0].when[0].values[0]"]),
            (&when("values: [a]"), &["error spec.rules[0].when[0].key"]),
            ("{action: DENY, rules: [{to: [{operation: {methods: [GET]}}]}]}", &["warn spec.rules[0]"]),
            ("{action: DENY, rules: [{from: [{source: {requestPrincipals: [a]}}]}]}", &["warn spec.rules[0]"]),
            ("{action: DENY, rules: [{to: [{operation: {methods: [GET], ports: ['80']}}]}]}", &[]),
        ],
    );
}

#[test]
fn only_allowing_and_denying_can_be_tried_without_effect() {
    let metadata = |value: &str| format!("metadata: {{name: own, annotations: {{istio.io/dry-run: '{value}'}}}}");
    let refused: &[&str] = &[r#"error metadata.annotations["istio.io/dry-run"]"#];
    check_with("AuthorizationPolicy", &metadata("true"), &[("{}", &[])]);
    check_with("AuthorizationPolicy", &metadata("yes"), &[("{}", refused)]);
    check_with("AuthorizationPolicy", &metadata("true"), &[("{action: AUDIT, rules: [{}]}", refused)]);
    check_with("PeerAuthentication", &metadata("true"), &[("{}", refused)]);
}
