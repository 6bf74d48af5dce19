//! A real Envoy with the same listeners.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use maille_xds::types::{Message, bootstrap, cluster, core, listener};

pub(crate) struct Envoy {
    child: Child,
    _folder: tempfile::TempDir,
}

/// `$ENVOY`; without it the test is skipped, and says so.
pub(crate) fn program() -> Option<PathBuf> {
    let named = std::env::var_os("ENVOY").filter(|named| !named.is_empty()).map(PathBuf::from);
    if named.is_none() {
        assert!(std::env::var("CI").as_deref() != Ok("true"), "no envoy: set ENVOY");
        eprintln!("skipped: ENVOY names no Envoy to compare with");
    }
    named
}

impl Envoy {
    pub(crate) fn start(program: &Path, listeners: Vec<listener::Listener>, clusters: Vec<cluster::Cluster>) -> Envoy {
        let bootstrap = bootstrap::Bootstrap {
            node: Some(core::Node { id: "test".into(), cluster: "test".into(), ..Default::default() }),
            static_resources: Some(bootstrap::bootstrap::StaticResources { listeners, clusters, ..Default::default() }),
            ..Default::default()
        };
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("bootstrap.pb");
        std::fs::write(&path, bootstrap.encode_to_vec()).unwrap();
        let child = Command::new(program)
            .args(["--disable-hot-restart", "--concurrency", "1", "--log-level", "error"])
            .args(["--file-flush-interval-msec", "10", "-c"])
            .arg(&path)
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        Envoy { child, _folder: folder }
    }
}

impl Drop for Envoy {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
