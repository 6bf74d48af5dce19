//! Whatever the text, reading it ends, and ends without a panic.

use proptest::prelude::*;

use super::fixtures;
use crate::parse::{load, mesh_config};

const WORDS: &[&str] = &[
    "apiVersion: networking.istio.io/v1\n",
    "kind: VirtualService\n",
    "kind: List\nitems:\n",
    "kind: Secret\n",
    "metadata:\n",
    "spec:\n",
    "  ",
    "- ",
    "name: ",
    "hosts: ",
    "http:\n",
    "route:\n",
    "&a ",
    "*a",
    "<<: ",
    "{",
    "}",
    "[",
    "]",
    ", ",
    ": ",
    "\n",
    "\t",
    "---\n",
    "...\n",
    "|\n",
    ">-\n",
    "'",
    "\"",
    "\\x",
    "#",
    "!!str ",
    "!",
    "%YAML 1.2\n",
    "%TAG ! tag:x,2000:\n",
    "? ",
    "null",
    "1e9",
    "-5s",
    "é",
    "\u{feff}",
    "\r\n",
    "\r",
    "\u{0}",
    "💥",
];

proptest! {
    #[test]
    fn any_text_is_read(text in any::<String>()) {
        let loaded = load(&text, "test");
        loaded.diagnostics.iter().for_each(|diagnostic| { diagnostic.to_string(); });
        mesh_config(&text, "test");
    }

    #[test]
    fn any_words_are_read(words in prop::collection::vec(prop::sample::select(WORDS), 0..60)) {
        let loaded = load(&words.concat(), "test");
        loaded.diagnostics.iter().for_each(|diagnostic| { diagnostic.to_string(); });
    }

    #[test]
    fn a_damaged_file_is_read(file in any::<prop::sample::Index>(), at in any::<prop::sample::Index>(), cut in 0usize..200,
                              word in prop::sample::select(WORDS)) {
        let files = fixtures("every_field");
        let mut text: Vec<char> = file.get(&files).1.chars().collect();
        let at = at.index(text.len());
        let end = (at + cut).min(text.len());
        text.splice(at..end, word.chars());
        let loaded = load(&text.into_iter().collect::<String>(), "test");
        loaded.diagnostics.iter().for_each(|diagnostic| { diagnostic.to_string(); });
    }
}

#[test]
fn what_is_too_much_is_refused() {
    let bomb = (1..30).fold("a0: &a0 [x,x,x,x,x,x,x,x,x]\n".to_owned(), |text, i| {
        let before = format!("*a{},", i - 1).repeat(9);
        text + &format!("a{i}: &a{i} [{before}]\n")
    });
    let doubling = (1..60).fold("a0: &a0 {k: v}\n".to_owned(), |text, i| {
        text + &format!("a{i}: &a{i} {{l: *a{}, r: *a{}}}\n", i - 1, i - 1)
    });
    for (text, message) in [
        ("[".repeat(100_000), "recursion limit exceeded"),
        ("- ".repeat(100_000), "nests deeper"),
        ("{a: ".repeat(100_000), "recursion limit exceeded"),
        (bomb, "too large"),
        (doubling, "too large"),
    ] {
        let loaded = load(&text, "test");
        let found = loaded.diagnostics[0].to_string();
        assert!(found.contains(message), "{}: {found}", &text[..20]);
        assert!(found.len() < 2000, "{found}");
    }
}

#[test]
fn thousands_of_mistakes_are_told_in_moderation() {
    let fields: String = (0..5000).map(|i| format!("  x{i}: 1\n")).collect();
    let text = format!("apiVersion: networking.istio.io/v1\nkind: Gateway\nmetadata: {{name: x}}\nspec:\n{fields}");
    let loaded = load(&text, "test");
    assert!(loaded.objects.is_empty());
    assert!((50..200).contains(&loaded.diagnostics.len()), "{}", loaded.diagnostics.len());
}
