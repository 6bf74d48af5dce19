//! docs/attacks.md says which test stands for which attack: it is held to it.

use std::collections::BTreeSet;
use std::path::Path;

#[test]
fn every_row_has_its_tests() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let page = std::fs::read_to_string(root.join("docs/attacks.md")).unwrap();
    let mut rows = BTreeSet::new();
    collect(&root.join("crates"), &mut rows);
    for row in 1..=36u8 {
        assert!(page.contains(&format!("| `row_{row:02}_*`")), "docs/attacks.md has no row {row}");
        assert!(rows.contains(&row), "row {row} has no test");
    }
}

fn collect(folder: &Path, rows: &mut BTreeSet<u8>) {
    for entry in std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
        if entry.is_dir() {
            collect(&entry, rows);
        } else if entry.extension().is_some_and(|end| end == "rs") {
            let text = std::fs::read_to_string(&entry).unwrap_or_default();
            rows.extend(text.split("fn row_").skip(1).filter_map(|rest| rest.get(..2)?.parse::<u8>().ok()));
        }
    }
}
