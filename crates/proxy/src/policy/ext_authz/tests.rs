//! What authorizers are asked, and what their answers mean.

use maille_http::h1::{Limits, parse_response};
use maille_xds::types::kind::HttpStatus;
use maille_xds::types::pb::envoy::service::auth::v3::{DeniedHttpResponse, OkHttpResponse};
use maille_xds::types::pb::google::rpc::Status;

use super::*;
use crate::config::{AuthzGrpc, AuthzService, BodyShown};

fn prefix(text: &str) -> StringMatcher {
    StringMatcher::Prefix(text.as_bytes().into())
}

fn filter(allowed: Option<Vec<StringMatcher>>) -> ExtAuthz {
    ExtAuthz {
        service: AuthzService::Grpc(AuthzGrpc { cluster: "authz".into(), authority: "authz".into() }),
        timeout: None,
        failure_mode_allow: false,
        failure_mode_header: false,
        status_on_error: 403,
        body: Some(BodyShown { max: 4, partial: true, as_bytes: false }),
        enabled: None,
        clear_route: false,
        include_certificate: false,
        include_server_name: false,
        allowed,
        disallowed: vec![prefix("x-secret")],
        metadata_namespaces: vec!["jwt".into()],
        stat_prefix: "".into(),
    }
}

fn http() -> AuthzHttp {
    AuthzHttp {
        cluster: "authz".into(),
        path_prefix: "/check".into(),
        headers: vec![(Name::new("x-asked-by"), b"maille"[..].into())],
        to_upstream: vec![prefix("x-up")],
        append_to_upstream: Vec::new(),
        to_client: vec![prefix("x-down")],
        to_client_on_success: vec![prefix("x-ok")],
        to_metadata: Vec::new(),
    }
}

fn response(text: &str) -> ResponseHead {
    let mut head = ResponseHead::default();
    let limits = Limits { head_bytes: 4096, fields: 100, http10: true, ..Limits::ENVOYS };
    parse_response(text.as_bytes(), &limits, false, &mut head).unwrap().unwrap();
    head
}

fn names(fields: &[(Name, Vec<u8>)]) -> Vec<&str> {
    fields.iter().map(|(name, _)| name.as_str()).collect()
}

#[test]
fn what_is_asked_over_grpc() {
    let head = RequestHead::build(
        "POST",
        "shop",
        "/a?b",
        &[("x-a", "1"), ("x-a", "2"), ("x-secret-key", "k"), (PARTIAL_BODY, "false")],
    );
    let uris = ["spiffe://td/ns/a/sa/b".into()];
    let facts = Facts {
        head: Some(&head),
        direct: "10.0.0.1".parse().unwrap(),
        remote: "10.0.0.1".parse().unwrap(),
        destination: "10.0.0.2:80".parse().unwrap(),
        server_name: "",
        peer: Some(super::super::rbac::Peer { uris: &uris, dns: &[], subject: "CN=x" }),
        metadata: None,
        route_metadata: None,
    };
    let shown = Shown { bytes: b"half", partial: true };
    let source = "10.0.0.1:5000".parse().unwrap();
    let written =
        Metadata([("jwt".into(), serde_json::json!({"iss": "i"})), ("other".into(), serde_json::json!({}))].into());
    let described = Described {
        head: Some(&head),
        source,
        protocol: "HTTP/1.1",
        id: 7,
        now: UNIX_EPOCH,
        local_principal: "",
        certificate: b"der",
    };
    let bytes = filter(None).check_request(&facts, &described, Some(shown), &written);
    let context = CheckRequest::decode(&bytes[..]).unwrap().attributes.unwrap();
    let asked = context.request.unwrap().http.unwrap();
    assert_eq!((asked.method.as_str(), asked.path.as_str(), asked.body.as_str()), ("POST", "/a?b", "half"));
    assert_eq!(asked.headers["x-a"], "1,2");
    assert_eq!(asked.headers[PARTIAL_BODY], "true", "nobody else may say so");
    assert!(!asked.headers.contains_key("x-secret-key"));
    let source = context.source.unwrap();
    assert_eq!((source.principal.as_str(), source.certificate.as_str()), ("spiffe://td/ns/a/sa/b", ""));
    assert_eq!(context.metadata_context.unwrap().filter_metadata.keys().collect::<Vec<_>>(), ["jwt"]);
}

#[test]
fn what_is_asked_over_http() {
    let head =
        RequestHead::build("PUT", "shop", "/a", &[("authorization", "x"), ("x-other", "1"), ("content-length", "9")]);
    let own = StringMatcher::Exact(b"authorization"[..].into());
    let asked = http().request(&filter(Some(vec![own])), &head, None);
    assert_eq!(
        (asked.method(), asked.path_and_query(), asked.authority()),
        (&b"PUT"[..], &b"/check/a"[..], &b"shop"[..])
    );
    let get = |name: &str| asked.header(&Name::new(name)).map(|v| String::from_utf8_lossy(&v).into_owned());
    assert_eq!(get("authorization").as_deref(), Some("x"));
    assert_eq!(get("x-other"), None);
    assert_eq!(get("x-asked-by").as_deref(), Some("maille"));
    assert_eq!(get("content-length").as_deref(), Some("0"), "our body's, not the request's");
}

#[test]
fn what_answers_mean() {
    let answer = http().answer(
        &response("HTTP/1.1 200 OK\r\nx-up-a: 1\r\nx-ok-b: 2\r\nx-envoy-auth-headers-to-remove: cookie, host\r\n\r\n"),
        Vec::new(),
    );
    assert_eq!(answer.verdict, Verdict::Allowed);
    assert_eq!((names(&answer.set), names(&answer.response)), (vec!["x-up-a"], vec!["x-ok-b"]));
    let mut head = RequestHead::build("GET", "shop", "/", &[("cookie", "c"), ("x-up-a", "spoofed")]);
    assert!(answer.apply(&mut head));
    assert_eq!(head.header(&Name::new("x-up-a")).as_deref(), Some(&b"1"[..]));
    assert_eq!(head.header(&Name::new("cookie")), None);
    assert_eq!(head.authority(), b"shop");

    let denied = http().answer(
        &response("HTTP/1.1 302 Found\r\nlocation: /login\r\nx-down-a: 1\r\nx-other: 2\r\ncontent-length: 4\r\n\r\n"),
        b"sign".to_vec(),
    );
    assert_eq!(denied.verdict, Verdict::Denied(302, b"sign".to_vec()));
    assert_eq!(names(&denied.response), ["location", "x-down-a"]);
    assert_eq!(http().answer(&response("HTTP/1.1 503 No\r\n\r\n"), Vec::new()).verdict, Verdict::Failed);

    let grpc = |response: CheckResponse| filter(None).check_response(&response.encode_to_vec());
    let header = |key: &str| core::HeaderValueOption {
        header: Some(core::HeaderValue { key: key.into(), value: "v".into(), ..Default::default() }),
        ..Default::default()
    };
    let allowed = grpc(CheckResponse {
        status: Some(Status::default()),
        http_response: Some(HttpResponse::OkResponse(OkHttpResponse {
            headers: vec![header("x-a"), header("transfer-encoding"), header("bad name")],
            headers_to_remove: vec!["host".into(), ":path".into(), "x-b".into()],
            ..Default::default()
        })),
        ..Default::default()
    });
    assert_eq!((allowed.verdict, names(&allowed.set)), (Verdict::Allowed, vec!["x-a"]));
    assert_eq!(allowed.remove.iter().map(Name::as_str).collect::<Vec<_>>(), ["x-b"]);
    let refused = grpc(CheckResponse {
        status: Some(Status { code: 7, ..Default::default() }),
        http_response: Some(HttpResponse::DeniedResponse(DeniedHttpResponse {
            status: Some(HttpStatus { code: 401 }),
            headers: vec![header("www-authenticate")],
            body: "no".into(),
        })),
        ..Default::default()
    });
    assert_eq!(refused.verdict, Verdict::Denied(401, b"no".to_vec()));
    assert_eq!(filter(None).check_response(b"\xff\xff").verdict, Verdict::Failed, "what is no message is no consent");
}
