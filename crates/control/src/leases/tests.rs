//! Who gets a lease, what it puts in the store, and what is remembered.

use super::*;
use crate::auth::Caller;

struct Fixture {
    store: Arc<Store>,
    leases: Arc<Leases>,
    path: PathBuf,
    _folder: tempfile::TempDir,
}

impl Fixture {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("1.leases");
        let store = Arc::new(Store::new());
        Self { leases: Leases::restore(store.clone(), path.clone()), store, path, _folder: folder }
    }

    /// The same place after a restart of the process.
    fn restarted(self) -> Self {
        let store = Arc::new(Store::new());
        Self { leases: Leases::restore(store.clone(), self.path.clone()), store, ..self }
    }

    fn names(&self) -> Vec<String> {
        self.store.list().1.iter().map(|object| object.meta.name.clone()).collect()
    }
}

fn entry(name: &str, spec: Value) -> Vec<u8> {
    let meta = json!({"name": name, "namespace": "shop"});
    let entry =
        json!({"apiVersion": "networking.istio.io/v1", "kind": "WorkloadEntry", "metadata": meta, "spec": spec});
    entry.to_string().into_bytes()
}

fn at(address: &str) -> Value {
    json!({"address": address, "labels": {"app": "reviews"}})
}

#[test]
fn an_entry_is_there_for_as_long_as_its_lease() {
    let fixture = Fixture::new();
    let lease = fixture.leases.take(&Caller::Owner, &entry("a", at("127.1.1.1"))).unwrap();
    let other = fixture.leases.take(&Caller::Owner, &entry("b", at("127.1.1.2"))).unwrap();
    assert_eq!(fixture.names(), ["a", "b"]);
    let greeting: Value = serde_json::from_slice(&lease.greeting).unwrap();
    assert_eq!(greeting, json!({"name": "a", "namespace": "shop", "address": "127.1.1.1"}));
    drop(lease);
    assert_eq!(fixture.names(), ["b"]);
    drop(other);
    assert_eq!(fixture.names(), [""; 0]);
    assert!(!fixture.leases.save_or_remove() && !fixture.path.exists());
}

#[test]
fn addresses_are_assigned_when_asked_for() {
    let fixture = Fixture::new();
    let assigned = |lease: &Lease| {
        let greeting: Value = serde_json::from_slice(&lease.greeting).unwrap();
        greeting["address"].as_str().unwrap().parse::<Ipv4Addr>().unwrap()
    };
    let leases: Vec<Lease> = (0..100)
        .map(|n| {
            fixture
                .leases
                .take(&Caller::Owner, &entry(&format!("w{n}"), json!({"labels": {"app": "reviews"}})))
                .unwrap()
        })
        .collect();
    let addresses: std::collections::BTreeSet<Ipv4Addr> = leases.iter().map(assigned).collect();
    assert_eq!(addresses.len(), leases.len());
    assert!(addresses.iter().all(|ip| ip.octets()[0] == 127 && ip.octets()[1] > 0), "{addresses:?}");
    let first = assigned(&leases[0]);
    drop(leases);
    let again = fixture.leases.take(&Caller::Owner, &entry("w0", json!({}))).unwrap();
    assert_eq!(assigned(&again), first, "a name keeps its address while it is free");
}

#[test]
fn what_cannot_be_registered_is_refused_by_name() {
    let fixture = Fixture::new();
    let written = read(std::str::from_utf8(&entry("written", at("10.0.0.1"))).unwrap()).unwrap();
    fixture.store.apply("files", vec![Change::Put(Arc::new(written))]);
    let _held = fixture.leases.take(&Caller::Owner, &entry("held", at("127.1.1.1"))).unwrap();
    let service = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "s", "namespace": "shop"},
        "spec": {"ports": [{"port": 80, "name": "http"}]}});
    let cases = [
        (b"{".to_vec(), "EOF"),
        (b"[]".to_vec(), "the request is not a WorkloadEntry"),
        (service.to_string().into_bytes(), "its kind is Service"),
        (entry("", at("127.1.1.1")), "name"),
        (entry("a", json!({"address": "127.1.1.1", "label": {}})), "label"),
        (entry("a", json!({"address": "no address!"})), "no address!"),
        (entry("a", json!({"address": 5})), "a string was expected"),
        (entry("a", at("0.0.0.0")), "nobody could be reached there"),
        (entry("a", at("::ffff:0.0.0.0")), "nobody could be reached there"),
        (entry("a", at("::")), "nobody could be reached there"),
        (entry("a", at("224.0.0.1")), "nobody could be reached there"),
        (entry("a", at("255.255.255.255")), "nobody could be reached there"),
        (entry("a", at("unix:///run/a.sock")), "a socket of one machine"),
        (entry("../a", at("127.1.1.1")), "not a valid name"),
        (entry("held", at("127.1.1.2")), "shop/held is a workload that is running"),
        (entry("written", at("127.1.1.2")), "shop/written is written in the configuration"),
    ];
    for (body, why) in cases {
        let refused = fixture.leases.take(&Caller::Owner, &body).err().expect("refused").to_string();
        assert!(refused.contains(why), "{refused}\nshould say {why}");
    }
    fixture.leases.close();
    assert!(matches!(fixture.leases.take(&Caller::Owner, &entry("late", at("127.1.1.3"))), Err(Refused::Stopping)));
}

#[tokio::test]
async fn a_workload_started_again_waits_for_its_namesake_to_be_gone() {
    let fixture = Fixture::new();
    let old = fixture.leases.take(&Caller::Owner, &entry("a", at("127.1.1.1"))).unwrap();
    let other = fixture.leases.take(&Caller::Owner, &entry("b", at("127.1.1.2"))).unwrap();
    let body = entry("a", at("127.1.1.9"));
    let new = fixture.leases.take_when_free(&Caller::Owner, &body);
    let (new, ()) = tokio::join!(new, async move {
        drop(other);
        tokio::task::yield_now().await;
        drop(old);
    });
    let _new = new.unwrap();
    assert_eq!(address(&fixture.store.list().1[0]), "127.1.1.9");
}

#[test]
fn workloads_outlive_a_restart_and_go_if_they_do_not_come_back() {
    let fixture = Fixture::new();
    let lost = fixture.leases.take(&Caller::Owner, &entry("lost", at("127.1.1.1"))).unwrap();
    let back = fixture.leases.take(&Caller::Owner, &entry("back", at("127.1.1.2"))).unwrap();
    fixture.leases.close();
    drop((lost, back));
    assert!(fixture.leases.save_or_remove());
    let was = fixture.store.list().1;

    let fixture = fixture.restarted();
    assert_eq!(fixture.store.list().1, was, "exactly as they were, or proxies would be sent a change");
    assert_eq!(fixture.leases.count(), 0);
    assert!(fixture.leases.workloads().iter().all(|workload| workload.awaited));
    let revision = fixture.store.list().0;
    let _back = fixture.leases.take(&Caller::Owner, &entry("back", at("127.1.1.2"))).unwrap();
    assert_eq!(fixture.store.list().0, revision, "coming back is not a change");
    fixture.leases.forget_absent();
    assert_eq!(fixture.names(), ["back"]);
}

#[test]
fn what_is_remembered_has_to_be_recent_and_private() {
    let fixture = Fixture::new();
    let lease = fixture.leases.take(&Caller::Owner, &entry("a", at("127.1.1.1"))).unwrap();
    fixture.leases.close();
    drop(lease);
    fixture.leases.save_or_remove();
    let content = std::fs::read(&fixture.path).unwrap();
    let file = File::options().append(true).open(&fixture.path).unwrap();
    file.set_modified(SystemTime::now() - MAX_AGE * 2).unwrap();
    let fixture = fixture.restarted();
    assert_eq!(fixture.names(), [""; 0]);
    assert!(!fixture.path.exists());

    for bad in [&b"{"[..], b"{}", br#"{"items": [{"kind": "Service"}]}"#] {
        write_private(&fixture.path, bad).unwrap();
        assert!(remembered(&fixture.path).is_err());
    }
    std::fs::write(&fixture.path, &content).unwrap();
    assert_eq!(remembered(&fixture.path).unwrap().len(), 1);
    std::fs::set_permissions(&fixture.path, std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
    assert!(remembered(&fixture.path).is_err());
}
