//! Every file in `tests/fixtures/mistakes` yields exactly the findings in the `.txt` beside it.
//!
//! `UPDATE_EXPECT=1 cargo test -p maille-api` writes them anew; read the difference.

use super::fixtures;
use crate::parse::load;

#[test]
fn mistakes_are_found_where_they_are() {
    let mut differences = Vec::new();
    for (name, text) in fixtures("mistakes") {
        let expected =
            format!("{}/tests/fixtures/mistakes/{name}", env!("CARGO_MANIFEST_DIR")).replace(".yaml", ".txt");
        let loaded = load(&text, &name);
        let mut found: String = loaded.diagnostics.iter().map(|diagnostic| format!("{diagnostic}\n\n")).collect();
        for object in &loaded.objects {
            found += &format!("used: {}\n", object.key());
        }
        if std::env::var_os("UPDATE_EXPECT").is_some() {
            std::fs::write(&expected, &found).unwrap();
        }
        let wanted = std::fs::read_to_string(&expected).unwrap_or_default();
        if found != wanted {
            differences.push(format!("=== {name}\n--- wanted\n{wanted}\n--- found\n{found}"));
        }
    }
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}

/// A fixture with such a byte would be no text file.
#[test]
fn a_nul_byte_is_no_question_of_tabs() {
    let loaded = load("apiVersion: v1\nkind: Namespace\nmetadata: {name: a\0b}\n", "nul.yaml");
    let [diagnostic] = loaded.diagnostics.as_slice() else { panic!("{:?}", loaded.diagnostics) };
    assert_eq!((diagnostic.line, diagnostic.column), (3, 19));
    assert!(diagnostic.hint.as_ref().is_some_and(|hint| hint.contains("text file")), "{diagnostic}");
}

/// Each finding holds the line it is about, and here that is a long one.
#[test]
fn findings_about_one_resource_are_counted_past_the_first_hundred() {
    let labels: String = (0..20_000).map(|n| format!("'k{n} !': v, ")).collect();
    let text = format!("apiVersion: v1\nkind: Namespace\nmetadata: {{name: a, labels: {{{labels}}}}}\n");
    let loaded = load(&text, "many.yaml");
    assert!(loaded.objects.is_empty());
    assert_eq!(loaded.diagnostics.len(), 101);
    let last = loaded.diagnostics.last().unwrap().to_string();
    assert!(last.contains("19900 more findings"), "{last}");
}
