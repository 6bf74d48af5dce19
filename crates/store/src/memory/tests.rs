//! What readers of the store may rely on.

use std::sync::Arc;

use maille_api::core::Namespace;
use maille_api::{Key, Kind, Object, ObjectMeta};

use super::{Change, Store};

fn namespace(name: &str, label: &str) -> Arc<Object> {
    let labels = [("said".to_owned(), label.to_owned())].into();
    let meta = ObjectMeta { name: name.to_owned(), labels, ..ObjectMeta::default() };
    Arc::new(Object { meta, spec: Namespace::default().into(), source: None })
}

fn key(name: &str) -> Key {
    Key { kind: Kind::Namespace, namespace: String::new(), name: name.to_owned() }
}

fn says(store: &Store, name: &str) -> Option<String> {
    store.get(&key(name)).map(|object| object.meta.labels["said"].clone())
}

#[test]
fn changes_of_one_call_are_one_revision() {
    let store = Store::new();
    let mut revisions = store.subscribe();
    assert_eq!(store.apply("files", vec![Change::Put(namespace("a", "1")), Change::Put(namespace("b", "1"))]), 1);
    assert!(revisions.has_changed().unwrap());
    assert_eq!(*revisions.borrow_and_update(), 1);
    let (revision, objects) = store.list();
    assert_eq!((revision, objects.len()), (1, 2));
}

#[test]
fn what_changes_nothing_makes_no_revision() {
    let store = Store::new();
    store.apply("files", vec![Change::Put(namespace("a", "1"))]);
    let rows = [
        ("nothing at all", vec![]),
        ("the same again", vec![Change::Put(namespace("a", "1"))]),
        ("a delete of what is not there", vec![Change::Delete(key("b"))]),
    ];
    for (what, changes) in rows {
        assert_eq!(store.apply("files", changes), 1, "{what}");
    }
}

#[test]
fn an_origin_takes_away_only_what_it_put_and_the_first_word_stands() {
    let store = Store::new();
    store.apply("files", vec![Change::Put(namespace("a", "file"))]);
    let revision = store.apply("leases", vec![Change::Put(namespace("a", "lease"))]);
    assert_eq!((revision, says(&store, "a").as_deref()), (1, Some("file")));
    store.apply("leases", vec![Change::Put(namespace("a", "lease, again"))]);
    assert_eq!(says(&store, "a").as_deref(), Some("file"));
    store.apply("files", vec![Change::Delete(key("a"))]);
    assert_eq!(says(&store, "a").as_deref(), Some("lease, again"));
    store.apply("files", vec![Change::Delete(key("a"))]);
    assert_eq!(says(&store, "a").as_deref(), Some("lease, again"));
    store.apply("leases", vec![Change::Delete(key("a"))]);
    assert_eq!(says(&store, "a"), None);
    assert!(store.list().1.is_empty());
}
