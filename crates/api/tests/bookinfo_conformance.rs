//! Istio's own demo application: every networking file is accepted as it stands.

use std::path::{Path, PathBuf};

use maille_api::parse::load;

#[test]
fn conformance_bookinfo_is_accepted() {
    let Some(folder) = conformance() else { return };
    let mut files: Vec<_> = std::fs::read_dir(folder.join("samples/bookinfo/networking"))
        .expect("the conformance data has samples/bookinfo/networking")
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "yaml"))
        .collect();
    files.sort();
    assert!(files.len() > 10, "only {} files", files.len());
    for file in files {
        let text = std::fs::read_to_string(&file).unwrap();
        let loaded = load(&text, &file.to_string_lossy());
        let errors: Vec<_> = loaded.diagnostics.iter().filter(|diagnostic| diagnostic.is_error()).collect();
        assert!(errors.is_empty(), "{}", errors.iter().map(|error| error.to_string()).collect::<String>());
        let documents = text.split("\n---").filter(|document| document.contains("kind:")).count();
        assert_eq!(loaded.objects.len(), documents, "{}", file.display());
    }
}

/// The folder of the conformance data, if it is there.
fn conformance() -> Option<PathBuf> {
    let beside = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/conformance");
    let folder = std::env::var_os("CONFORMANCE").map_or_else(beside, PathBuf::from);
    if folder.is_dir() {
        return Some(folder);
    }
    println!("skipped: there is no conformance data at {}", folder.display());
    None
}
