use super::*;
use crate::headers::Protocol;

fn addition(name: &str, value: &str, action: AppendAction) -> Addition {
    Addition { name: Name::new(name), value: Format::parse(value, Name::new).unwrap(), action, keep_empty: false }
}

fn level(remove: &[&str], add: Vec<Addition>) -> Arc<Level> {
    Arc::new(Level { remove: remove.iter().map(|n| Name::new(n)).collect(), add })
}

fn request(levels: &[Arc<Level>], fields: &[(&str, &str)]) -> Vec<(String, String)> {
    let mut head = RequestHead::build("GET", "a.example", "/p?q=1", fields);
    let stream = StreamInfo { protocol: Some(Protocol::Http11), ..StreamInfo::default() };
    HeaderMutations::new(levels).apply_to_request(&mut head, &stream, &mut Scratch::default());
    let text = |b: &[u8]| String::from_utf8(b.to_vec()).unwrap();
    head.headers.iter().map(|(n, v)| (text(n), text(v))).collect()
}

fn fields(expected: &[(&str, &str)]) -> Vec<(String, String)> {
    expected.iter().map(|(n, v)| (n.to_string(), v.to_string())).collect()
}

#[test]
fn actions() {
    use AppendAction::*;
    for (action, without, with) in [
        (Append, &[("x", "new")][..], &[("x", "old"), ("x", "new")][..]),
        (AddIfAbsent, &[("x", "new")], &[("x", "old")]),
        (Overwrite, &[("x", "new")], &[("x", "new")]),
        (OverwriteIfExists, &[], &[("x", "new")]),
    ] {
        let levels = [level(&[], vec![addition("X", "new", action)])];
        assert_eq!(request(&levels, &[]), fields(without), "{action:?}");
        assert_eq!(request(&levels, &[("x", "old")]), fields(with), "{action:?}");
    }
}

#[test]
fn a_level_reads_the_fields_it_was_given_and_the_next_sees_its_work() {
    let levels = [
        level(
            &["gone"],
            vec![
                addition("a", "%REQ(b)% %REQ(gone)%|%PROTOCOL%", AppendAction::Append),
                addition("b", "2", AppendAction::Overwrite),
                addition("empty", "%REQ(gone)%", AppendAction::Append),
            ],
        ),
        level(&["a"], vec![addition("c", "%REQ(a)%%REQ(b)%100%%", AppendAction::Append)]),
    ];
    let got = request(&levels, &[("gone", "x"), ("b", "1")]);
    assert_eq!(got, fields(&[("b", "2"), ("c", "2100%")]));
    let first = request(&levels[..1], &[("gone", "x"), ("b", "1")]);
    assert_eq!(first, fields(&[("b", "2"), ("a", "1 |HTTP/1.1")]));
}

#[test]
fn responses_see_both_heads() {
    let levels = [level(
        &["server"],
        vec![
            addition("x", "%RESPONSE_CODE% %REQ(:path)% %RESP(y)% %RESP(:status)%", AppendAction::Append),
            addition("z", "a\r\nevil: 1", AppendAction::Append),
        ],
    )];
    let mut head = ResponseHead::new(404);
    head.headers.append(&Name::new("y"), b"1");
    head.headers.append(&Name::new("server"), b"s");
    let stream = StreamInfo { response_code: 404, ..StreamInfo::default() };
    let request = RequestHead::build("GET", "a", "/p", &[]);
    HeaderMutations::new(&levels).apply_to_response(&mut head, &request, &stream, &mut Scratch::default());
    let mut out = Vec::new();
    head.headers.write(&mut out);
    assert_eq!(String::from_utf8(out).unwrap(), "y: 1\r\nx: 404 /p 1 404\r\nz: a  evil: 1\r\n");
}
