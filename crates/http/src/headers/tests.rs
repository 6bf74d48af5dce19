use super::*;

fn of(pairs: &[(&str, &str)]) -> Headers {
    let mut h = Headers::new();
    for (n, v) in pairs {
        h.append(&Name::new(n), v.as_bytes());
    }
    h
}

fn wire(h: &Headers) -> String {
    let mut out = Vec::new();
    h.write(&mut out);
    assert_eq!(out.len(), h.wire_len());
    String::from_utf8(out).unwrap()
}

#[test]
fn reads_what_was_appended() {
    let h = of(&[("X-A", "1"), ("accept", "*/*"), ("x-a", "2")]);
    assert_eq!(h.joined(&Name::new("x-A")).as_deref(), Some(&b"1,2"[..]));
    assert_eq!(h.get(HeaderId::Accept), Some(&b"*/*"[..]));
    assert_eq!(h.joined(&Name::new("x-b")), None);
    assert_eq!(h.values(&Name::new("x-a")).collect::<Vec<_>>(), [b"1", b"2"]);
    assert_eq!(wire(&h), "x-a: 1\r\naccept: */*\r\nx-a: 2\r\n");
}

#[test]
fn set_keeps_the_place_and_drops_the_rest() {
    let mut h = of(&[("x-a", "1"), ("x-b", "2"), ("x-a", "3"), ("x-c", "4")]);
    h.set(&Name::new("x-a"), b"new");
    assert_eq!(wire(&h), "x-a: new\r\nx-b: 2\r\nx-c: 4\r\n");
    h.set(&Name::new("x-d"), b"5");
    h.set_id(HeaderId::Server, b"s");
    h.set_id(HeaderId::Server, b"t");
    assert_eq!(wire(&h), "x-a: new\r\nx-b: 2\r\nx-c: 4\r\nx-d: 5\r\nserver: t\r\n");
}

#[test]
fn remove_takes_every_value() {
    let mut h = of(&[("x-a", "1"), ("te", "x"), ("x-a", "3"), ("x-c", "4")]);
    assert!(h.remove(&Name::new("X-A")));
    assert!(!h.remove(&Name::new("X-A")));
    assert!(h.remove(&Name::new("te")));
    assert!(!h.has(HeaderId::Te));
    assert_eq!(wire(&h), "x-c: 4\r\n");
    h.retain(|n, _, _| n != b"x-c");
    assert!(h.is_empty() && wire(&h).is_empty());
}

#[test]
fn a_line_break_cannot_make_a_second_header() {
    assert_eq!(wire(&of(&[("x-a", "1\r\nevil: 2\0")])), "x-a: 1  evil: 2 \r\n");
}

#[test]
fn what_envoy_keeps_one_of_is_joined() {
    let mut h = of(&[("accept", "a"), ("x-a", "1"), ("accept", ""), ("via", "")]);
    for (name, value) in
        [("accept", "b"), ("accept", ""), ("via", "v"), ("x-a", "2"), ("user-agent", "u"), ("etag", "e")]
    {
        h.join(&Name::new(name), value.as_bytes(), true);
    }
    h.join(&Name::new("etag"), b"f", true);
    // etag is one of responses alone.
    assert_eq!(wire(&h), "accept: a,b\r\nx-a: 1\r\nvia: v\r\nx-a: 2\r\nuser-agent: u\r\netag: e\r\netag: f\r\n");
    let mut h = of(&[
        ("accept", ""),
        ("x-a", "1"),
        ("accept", "a"),
        ("accept", ""),
        ("accept", "b"),
        ("etag", "e"),
        ("etag", "f"),
    ]);
    h.fold_lists(true);
    assert_eq!(wire(&h), "accept: a,b\r\nx-a: 1\r\netag: e\r\netag: f\r\n");
}
