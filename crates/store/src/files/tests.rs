//! Real files, written, replaced and broken in the ways that editors, mounts and people do it.

use std::fs;
use std::io::Write;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use maille_api::{Severity, Spec};
use tempfile::TempDir;

use super::Watch;
use crate::Store;

/// A watched folder and the store it fills.
struct World {
    folder: TempDir,
    store: Arc<Store>,
    watch: Watch,
}

fn service(name: &str, port: u16) -> String {
    format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: {name}, namespace: shop}}\nspec: {{ports: [{{port: {port}, name: http}}]}}\n"
    )
}

const BROKEN: &str = "apiVersion: v1\nkind: Service\nmetadata: {name: x\n  spec: [";

fn world(files: &[(&str, &str)]) -> World {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in files {
        fs::write(folder.path().join(name), text).unwrap();
    }
    watching(folder)
}

fn watching(folder: TempDir) -> World {
    let store = Arc::new(Store::new());
    let watch = Watch::start(vec![folder.path().to_owned()], store.clone()).unwrap();
    World { folder, store, watch }
}

impl World {
    fn path(&self, name: &str) -> std::path::PathBuf {
        self.folder.path().join(name)
    }

    /// As most editors do: a new file, renamed over the old one.
    fn save(&self, name: &str, text: &str) {
        let temporary = self.path(&format!(".{name}.tmp"));
        fs::write(&temporary, text).unwrap();
        fs::rename(temporary, self.path(name)).unwrap();
    }

    /// Waits for the store to hold these services, `name:port` each.
    fn becomes(&self, expected: &[&str]) {
        eventually(|| said(&self.store), |said| said == expected, &format!("{expected:?}; {:?}", self.problems()));
    }

    /// Errors and notes, shortened to what tells them apart.
    fn problems(&self) -> Vec<String> {
        self.watch.problems().iter().map(ToString::to_string).collect()
    }

    fn errors(&self) -> Vec<String> {
        let problems = self.watch.problems();
        problems.iter().filter(|p| p.severity == Severity::Error).map(ToString::to_string).collect()
    }

    fn complains(&self, of: &[&str]) {
        let fits = |errors: &Vec<String>| errors.len() == of.len() && errors.iter().zip(of).all(|(e, o)| e.contains(o));
        eventually(|| self.errors(), fits, &format!("errors about {of:?}"));
    }
}

fn said(store: &Store) -> Vec<String> {
    let services = store.list().1.into_iter().map(|object| match &object.spec {
        Spec::Service(service) => format!("{}:{}", object.meta.name, service.ports[0].port),
        _ => object.key().to_string(),
    });
    services.collect()
}

fn eventually<T: std::fmt::Debug>(look: impl Fn() -> T, holds: impl Fn(&T) -> bool, what: &str) {
    for _ in 0..2000 {
        if holds(&look()) {
            return;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    panic!("never came: {what}; it is {:?}", look());
}

/// Long enough for a change to have been noticed and applied, had anything been applied.
fn meanwhile(world: &World) {
    world.save("zz-marker.yaml", &service("zz", 1));
    eventually(|| said(&world.store), |said| said.iter().any(|s| s == "zz:1"), "the marker");
    fs::remove_file(world.path("zz-marker.yaml")).unwrap();
    eventually(|| said(&world.store), |said| !said.iter().any(|s| s == "zz:1"), "the marker's end");
}

#[test]
fn everything_is_there_when_start_returns() {
    let hidden = service("hidden", 1);
    let w = world(&[
        ("a.yaml", &service("a", 1)),
        ("b.yml", &service("b", 2)),
        (
            "c.json",
            r#"{"apiVersion": "v1", "kind": "Service", "metadata": {"name": "c", "namespace": "shop"}, "spec": {"ports": [{"port": 3}]}}"#,
        ),
        (".a.yaml.swp.yaml", &hidden),
        (".#d.yaml", &hidden),
        ("e.yaml~", &hidden),
        ("notes.txt", "not YAML: ["),
    ]);
    assert_eq!(said(&w.store), ["a:1", "b:2", "c:3"]);
    assert_eq!(w.problems(), [""; 0]);
}

#[test]
fn folders_inside_do_not_count_and_a_single_file_may_have_any_name() {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("inside.yaml")).unwrap();
    fs::write(folder.path().join("inside.yaml/x.yaml"), service("x", 1)).unwrap();
    fs::write(folder.path().join("mesh.conf"), service("w", 1)).unwrap();
    let store = Arc::new(Store::new());
    let paths = vec![folder.path().to_owned(), folder.path().join("mesh.conf")];
    let _watch = Watch::start(paths, store.clone()).unwrap();
    assert_eq!(said(&store), ["w:1"]);
}

#[test]
fn what_cannot_be_watched_is_named() {
    for path in ["/nonexistent/mesh.yaml", "/dev/null"] {
        let error = Watch::start(vec![path.into()], Arc::new(Store::new())).err().unwrap().to_string();
        assert!(error.contains(path), "{error}");
    }
}

#[test]
fn saves_deletes_and_renames_are_live() {
    let w = world(&[("a.yaml", &service("a", 1))]);
    w.save("a.yaml", &service("a", 2));
    w.becomes(&["a:2"]);
    fs::write(w.path("a.yaml"), service("a", 3)).unwrap();
    w.becomes(&["a:3"]);
    w.save("b.yaml", &service("b", 1));
    w.becomes(&["a:3", "b:1"]);
    fs::rename(w.path("b.yaml"), w.path("c.yaml")).unwrap();
    fs::remove_file(w.path("a.yaml")).unwrap();
    w.becomes(&["b:1"]);
    fs::rename(w.path("c.yaml"), w.path("c.yaml.disabled")).unwrap();
    w.becomes(&[]);
    assert_eq!(w.problems(), [""; 0]);
}

#[test]
fn a_broken_file_keeps_what_it_said_and_a_mended_one_clears_the_fault() {
    let w = world(&[("a.yaml", &service("a", 1)), ("b.yaml", BROKEN)]);
    w.complains(&["b.yaml"]);
    assert_eq!(said(&w.store), ["a:1"]);
    w.save("a.yaml", BROKEN);
    w.complains(&["a.yaml", "b.yaml"]);
    assert_eq!(said(&w.store), ["a:1"]);
    assert!(w.problems().iter().any(|p| p.contains("stays in force")), "{:?}", w.problems());
    // One good document does not make a good file.
    w.save("a.yaml", &format!("{}---\n{}  nonsense: 1\n", service("a", 2), service("b", 2)));
    w.complains(&["a.yaml", "b.yaml"]);
    meanwhile(&w);
    assert_eq!(said(&w.store), ["a:1"]);
    w.save("a.yaml", &service("a", 3));
    w.becomes(&["a:3"]);
    w.complains(&["b.yaml"]);
    fs::remove_file(w.path("b.yaml")).unwrap();
    w.complains(&[]);
    assert_eq!(said(&w.store), ["a:3"]);
}

#[test]
fn a_file_that_is_not_text_is_a_fault_like_any_other() {
    let w = world(&[("a.yaml", &service("a", 1))]);
    fs::write(w.path("a.yaml"), [0xff, 0xfe, 0x00]).unwrap();
    w.complains(&["UTF-8"]);
    assert_eq!(said(&w.store), ["a:1"]);
    w.save("a.yaml", &service("a", 2));
    w.becomes(&["a:2"]);
    w.complains(&[]);
}

#[test]
fn a_file_is_not_read_while_somebody_writes_it() {
    let text = format!("{}---\n{}", service("a", 1), service("b", 1));
    let w = world(&[("a.yaml", &text)]);
    let changes = w.store.subscribe();
    let mut file = fs::File::create(w.path("a.yaml")).unwrap();
    for part in [service("a", 2), "---\n".to_owned(), service("b", 2)] {
        // Cut off here the file would be good YAML, and say less than it is going to.
        std::thread::sleep(Duration::from_millis(250));
        assert!(!changes.has_changed().unwrap(), "{:?}", said(&w.store));
        file.write_all(part.as_bytes()).unwrap();
    }
    drop(file);
    w.becomes(&["a:2", "b:2"]);
    assert_eq!(*changes.borrow(), 2, "one change, not two");
}

#[test]
fn the_same_object_in_two_files_is_an_error_naming_both() {
    let w = world(&[("a.yaml", &service("x", 1)), ("b.yaml", &format!("{}---\n{}", service("x", 2), service("w", 1)))]);
    assert_eq!(said(&w.store), ["w:1", "x:1"]);
    let error = w.errors().pop().unwrap();
    assert!(error.contains("a.yaml:1") && error.contains("b.yaml:1") && error.contains("Service shop/x"), "{error}");
    fs::remove_file(w.path("a.yaml")).unwrap();
    w.becomes(&["w:1", "x:2"]);
    w.complains(&[]);
}

#[test]
fn an_object_that_moves_between_files_never_goes_away() {
    let w = world(&[("a.yaml", &format!("{}---\n{}", service("x", 1), service("w", 1))), ("b.yaml", &service("z", 1))]);
    for round in 0..5 {
        let (first, second) = if round % 2 == 0 { ("a.yaml", "b.yaml") } else { ("b.yaml", "a.yaml") };
        let store = w.store.clone();
        let revision = store.list().0;
        let watcher = std::thread::spawn(move || {
            for _ in 0..400 {
                assert!(said(&store).iter().any(|s| s == "x:1"), "x was gone: {:?}", said(&store));
                std::thread::sleep(Duration::from_millis(1));
            }
        });
        w.save(first, &service(&format!("w{round}"), 1));
        w.save(second, &format!("{}---\n{}", service("x", 1), service(&format!("z{round}"), 1)));
        watcher.join().unwrap();
        eventually(|| w.store.list().0, |now| *now > revision, "the move");
    }
}

#[test]
fn an_editor_that_moves_the_old_file_aside_first_takes_nothing_away() {
    let w = world(&[("a.yaml", &service("a", 1))]);
    let changes = w.store.subscribe();
    fs::rename(w.path("a.yaml"), w.path("a.yaml~")).unwrap();
    std::thread::sleep(Duration::from_millis(5));
    fs::write(w.path("a.yaml"), service("a", 2)).unwrap();
    w.becomes(&["a:2"]);
    assert_eq!(*changes.borrow(), 2, "one change, not a delete and a put");
}

#[test]
fn a_mounted_config_map_changes_by_a_swapped_link() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let version = |name: &str, port: u16| {
        fs::create_dir(at(name)).unwrap();
        fs::write(at(name).join("a.yaml"), service("a", port)).unwrap();
        fs::write(at(name).join("b.yaml"), service("b", port)).unwrap();
    };
    version("..2026_1", 1);
    symlink("..2026_1", at("..data")).unwrap();
    for name in ["a.yaml", "b.yaml"] {
        symlink(Path::new("..data").join(name), at(name)).unwrap();
    }
    let path = folder.path().to_owned();
    let w = watching(folder);
    assert_eq!(said(&w.store), ["a:1", "b:1"]);
    let changes = w.store.subscribe();
    for (round, port) in [(2, 2), (3, 3)] {
        fs::create_dir(path.join(format!("..2026_{round}"))).unwrap();
        for name in ["a", "b"] {
            fs::write(path.join(format!("..2026_{round}/{name}.yaml")), service(name, port)).unwrap();
        }
        symlink(format!("..2026_{round}"), path.join("..data_tmp")).unwrap();
        fs::rename(path.join("..data_tmp"), path.join("..data")).unwrap();
        fs::remove_dir_all(path.join(format!("..2026_{}", round - 1))).unwrap();
        w.becomes(&[&format!("a:{port}"), &format!("b:{port}")]);
    }
    assert_eq!(*changes.borrow(), 3, "each swap is one change");
    assert_eq!(w.problems(), [""; 0]);
}

#[test]
fn a_folder_that_is_made_anew_is_watched_again() {
    let parent = tempfile::tempdir().unwrap();
    let folder = parent.path().join("config");
    fs::create_dir(&folder).unwrap();
    fs::write(folder.join("a.yaml"), service("a", 1)).unwrap();
    let store = Arc::new(Store::new());
    let watch = Watch::start(vec![folder.clone()], store.clone()).unwrap();
    fs::rename(&folder, parent.path().join("aside")).unwrap();
    eventually(|| watch.problems().len(), |n| *n == 1, "a fault");
    assert_eq!(said(&store), ["a:1"], "a folder that is away says nothing new");
    fs::create_dir(&folder).unwrap();
    fs::write(folder.join("a.yaml"), service("a", 2)).unwrap();
    eventually(|| said(&store), |said| said == &["a:2"], "the new folder's word");
    fs::write(folder.join("a.yaml"), service("a", 3)).unwrap();
    eventually(|| said(&store), |said| said == &["a:3"], "a change in the new folder");
    assert!(watch.problems().is_empty());
}

#[test]
fn what_is_no_file_is_said_and_never_waited_for() {
    let w = world(&[("a.yaml", &service("a", 1)), ("b.yaml", &service("b", 1))]);
    fs::remove_file(w.path("a.yaml")).unwrap();
    symlink("a.yaml", w.path("a.yaml")).unwrap();
    fs::remove_file(w.path("b.yaml")).unwrap();
    let made = std::process::Command::new("mkfifo").arg(w.path("b.yaml")).status().unwrap();
    assert!(made.success());
    w.complains(&["a.yaml: error: cannot be read: it is a link", "b.yaml: error: cannot be read: it is neither"]);
    assert_eq!(said(&w.store), ["a:1", "b:1"], "what they said stays in force");
    let checked = super::check(&[w.folder.path().to_owned()]).unwrap();
    assert_eq!(checked.diagnostics.len(), 2, "{:?}", checked.diagnostics);

    fs::remove_file(w.path("a.yaml")).unwrap();
    fs::remove_file(w.path("b.yaml")).unwrap();
    w.becomes(&[]);
    w.complains(&[]);
}

#[test]
fn a_file_named_outright_may_become_something_else() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.yaml");
    fs::write(&path, service("a", 1)).unwrap();
    let store = Arc::new(Store::new());
    let watch = Watch::start(vec![path.clone()], store.clone()).unwrap();
    fs::remove_file(&path).unwrap();
    fs::create_dir(&path).unwrap();
    let error = || watch.problems().iter().map(ToString::to_string).collect::<String>();
    eventually(error, |error| error.contains("it is a directory"), "a fault");
    assert_eq!(said(&store), ["a:1"], "what it said stays in force");
    fs::remove_dir(&path).unwrap();
    fs::write(&path, service("a", 2)).unwrap();
    eventually(|| said(&store), |said| said == &["a:2"], "the file's word");
    eventually(error, String::is_empty, "no fault");
}

#[test]
fn problems_tell_of_their_changes() {
    let w = world(&[("a.yaml", &service("a", 1))]);
    let mut changed = w.watch.problems_changed();
    assert!(!changed.has_changed().unwrap());
    w.save("a.yaml", BROKEN);
    eventually(|| changed.has_changed().unwrap(), |changed| *changed, "a signal");
    changed.mark_unchanged();
    w.save("b.yaml", &service("b", 1));
    w.becomes(&["a:1", "b:1"]);
    assert!(!changed.has_changed().unwrap(), "nothing about the faults has changed");
}
