use super::*;

struct Fixed;

impl Values<String> for Fixed {
    fn write(&self, operator: &Operator<String>, out: &mut Vec<u8>) -> bool {
        let text: &[u8] = match operator {
            Operator::Request(pair) if pair.main == ":method" => b"GET",
            Operator::Request(pair) if pair.main == "evil" => b"a\"\n\x01\\\xff\xc3\xa9",
            Operator::Request(pair) if pair.other.as_deref() == Some(":path") => b"/p",
            Operator::Field(Field::ResponseCode) => b"200",
            Operator::Field(Field::Protocol) => b"HTTP/1.1",
            _ => return false,
        };
        out.extend_from_slice(text);
        true
    }
}

fn text(format: &str, escape: Escape) -> String {
    let mut out = Vec::new();
    Format::parse(format, str::to_owned).unwrap().write(&Fixed, b"-", escape, &mut out);
    String::from_utf8_lossy(&out).into_owned()
}

#[test]
fn texts() {
    for (format, expected) in [
        ("", ""),
        ("100%%", "100%"),
        ("%REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% %PROTOCOL%", "GET /p HTTP/1.1"),
        ("%REQ(:method):2%|%RESP(x)%|%ROUTE_NAME%", "GE|-|-"),
        ("%REQ(a)b)%%RESPONSE_CODE%", "-200"),
        ("%REQ(evil)%", "a\\\"\\x0a\\x01\\\\\\xffé"),
    ] {
        assert_eq!(text(format, Escape::Line), expected, "{format}");
    }
}

#[test]
fn what_is_no_format() {
    for (format, at, reason) in [
        ("100%", 3, "starts no operator"),
        ("a %nope% b", 2, "starts no operator"),
        ("%REQ%", 0, "needs arguments"),
        ("%REQ(a?b?c)%", 0, "more than one"),
        ("%RESPONSE_CODE:3%", 0, "takes no length"),
        ("%PROTOCOL(x)%", 0, "does not take"),
        ("%NO_SUCH_THING%", 0, "not known"),
        ("%START_TIME(%Q)%", 0, "not supported"),
        ("%PATH(XX)%", 0, "expected WQ"),
        ("%REQ(a):x%", 0, "starts no operator"),
    ] {
        let error = Format::parse(format, str::to_owned).unwrap_err();
        assert_eq!(error.at, at, "{format}");
        assert!(error.reason.contains(reason), "{format}: {error}");
    }
}

#[test]
fn json_keeps_numbers_and_stays_json() {
    let shape = serde_json::json!({
        "code": "%RESPONSE_CODE%", "none": "%ROUTE_NAME%", "both": "%REQ(:METHOD)% %ROUTE_NAME%", "evil": "%REQ(evil)%",
        "plain": "a\"b", "deep": {"list": [1, true, "%PROTOCOL%"]},
    });
    let mut out = Vec::new();
    JsonFormat::parse(&shape, false, str::to_owned).unwrap().write(&Fixed, &mut out);
    let line: serde_json::Value = serde_json::from_slice(&out).unwrap();
    assert_eq!(
        line,
        serde_json::json!({
            "code": 200, "none": null, "both": "GET -", "evil": "a\"\n\u{1}\\\u{ff}é", "plain": "a\"b",
            "deep": {"list": [1, true, "HTTP/1.1"]},
        })
    );
}

#[test]
fn istio_default_is_one_line() {
    let line = text(ISTIO_TEXT, Escape::Line);
    assert!(line.ends_with('\n') && line.contains("\"GET /p HTTP/1.1\" 200 "), "{line}");
}
