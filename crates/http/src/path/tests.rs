use super::*;

const NORMALIZE: PathRules = PathRules { normalize: true, merge_slashes: false, escaped_slashes: EscapedSlashes::Keep };

fn apply(rules: PathRules, path: &str) -> Option<String> {
    match rules.apply(path.as_bytes()) {
        Outcome::Continue(p) => Some(String::from_utf8(p.into_owned()).unwrap()),
        Outcome::Redirect(p) => Some(format!("-> {}", String::from_utf8(p).unwrap())),
        Outcome::Reject => None,
    }
}

/// What Envoy 1.40 answered to each path.
#[test]
fn as_envoy_does() {
    for (path, want) in [
        ("/a%", Some("/a%")),
        ("/a%4", Some("/a%4")),
        ("/a%zz", Some("/a%zz")),
        ("/%%30", Some("/%0")),
        ("/%%34%31", Some("/%2541")),
        ("/a/..", Some("/")),
        ("/a/.", Some("/a/")),
        ("/..", Some("/")),
        ("/../..", Some("/")),
        ("/a/./b", Some("/a/b")),
        ("/a//../b", Some("/a/b")),
        ("/a/%2e%2E/b", Some("/b")),
        ("/a%/../6{5", Some("/6%7B5")),
        ("/.%2e/b", Some("/b")),
        ("/a/...", Some("/a/...")),
        ("/a/..b", Some("/a/..b")),
        ("/a/b..", Some("/a/b..")),
        ("/a/%2e", Some("/a/")),
        ("/.hidden", Some("/.hidden")),
        ("/a/..;/b", Some("/b")),
        ("/a/..;x/b", Some("/b")),
        ("/a/.;/b", Some("/a/b")),
        ("/a/..;x", Some("/")),
        ("/a/.;", Some("/a/")),
        ("/a/..;\\b", Some("/")),
        ("/a/..;b?c", Some("/?c")),
        ("/a;b/c", Some("/a;b/c")),
        ("/a/;..;/b", Some("/a/;..;/b")),
        ("/x/a/..;/..;/b", Some("/b")),
        ("/a/..%3b/b", Some("/a/..%3b/b")),
        ("/a/..%2f..", Some("/a/..%2f..")),
        ("//", Some("//")),
        ("/a?x=/../b", Some("/a?x=/../b")),
        ("/a?^|\\", Some("/a?^|\\")),
        ("/a\\..\\b", Some("/b")),
        ("/a/\\../b", Some("/a/b")),
        ("/é", None),
        ("/a.%00", None),
        ("/%c3%28", Some("/%c3%28")),
        ("/a/b/../", Some("/a/")),
        ("/a%2e%2eb", Some("/a..b")),
        ("/a/..?x", Some("/?x")),
        ("/a%5c..", Some("/a%5c..")),
        ("/?%00", Some("/?%00")),
        ("/a|b^\"<>`{}", Some("/a%7Cb%5E%22%3C%3E%60%7B%7D")),
        ("/%41%7e%2D%5F", Some("/A~-_")),
        ("/a#b", None),
        ("/a\tb", None),
    ] {
        assert_eq!(apply(NORMALIZE, path).as_deref(), want, "{path}");
    }
}

#[test]
fn slashes() {
    let rules = |merge_slashes, escaped_slashes| PathRules { normalize: true, merge_slashes, escaped_slashes };
    for (rules, path, want) in [
        (rules(true, EscapedSlashes::Keep), "//a///b//?//", Some("/a/b/?//")),
        (rules(true, EscapedSlashes::Keep), "/a/..//b", Some("/b")),
        (rules(false, EscapedSlashes::Reject), "/a%2Fb", None),
        (rules(false, EscapedSlashes::Reject), "/a?%2Fb", Some("/a?%2Fb")),
        (rules(false, EscapedSlashes::UnescapeAndForward), "/a%2f..%5Cb", Some("/b")),
        (rules(true, EscapedSlashes::UnescapeAndForward), "/a%2F%2Fb", Some("/a/b")),
        (rules(false, EscapedSlashes::UnescapeAndRedirect), "/a%2fb?q", Some("-> /a/b?q")),
        (rules(false, EscapedSlashes::UnescapeAndRedirect), "/a/b", Some("/a/b")),
    ] {
        assert_eq!(apply(rules, path).as_deref(), want, "{path}");
    }
}

/// An escaped dot is a dot, also before path parameters, where Envoy lets it pass: the next server may resolve it.
#[test]
fn row_11_escaped_dots_are_dots() {
    assert_eq!(apply(NORMALIZE, "/a/%2e%2e;/b").as_deref(), Some("/b"));
}

proptest::proptest! {
    /// Once normal, always the same: a decision about the path stays true of what is sent on.
    #[test]
    fn row_11_a_normal_path_stays_as_it_is(path in "/[a-c./\\\\;%2eE45fF ?^]{0,24}") {
        if let Outcome::Continue(once) = NORMALIZE.apply(path.as_bytes()) {
            let again = NORMALIZE.apply(&once);
            proptest::prop_assert_eq!(&again, &Outcome::Continue(Cow::Borrowed(&once[..])), "{}", path);
        }
    }
}
