//! The workload's certificate for a proxy that is a process of its own: SDS on a Unix socket that only we and it can reach.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use maille_identity::{Workload, pem};
use maille_xds::server::{Received, TypeStatus};
use maille_xds::service::{self, Connection, Observer, WorldSource};
use maille_xds::types::core::{DataSource, Node, WatchedDirectory, data_source::Specifier};
use maille_xds::types::tls::secret::Type;
use maille_xds::types::tls::{CertificateValidationContext, Secret, TlsCertificate};
use maille_xds::{TypeUrl, World};
use tokio::net::UnixListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_stream::wrappers::UnixListenerStream;
use tonic::{Extensions, Status};

/// The names that Istio's configurations ask for.
pub(crate) const CERTIFICATE: &str = "default";
pub(crate) const ROOTS: &str = "ROOTCA";

/// Files are asked for by name, too.
const FILE_CERTIFICATE: &str = "file-cert:";
const FILE_ROOTS: &str = "file-root:";

/// What `file-root:system` means.
const SYSTEM: &str = "system";
const SYSTEM_ROOTS: [&str; 3] =
    ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem"];

/// More names than this are not asked for by anybody in earnest.
const MAX_NAMES: usize = 10_000;

/// A server; it ends when this is dropped.
#[derive(Debug)]
pub struct Sds {
    path: PathBuf,
    serving: Vec<JoinHandle<()>>,
}

impl Sds {
    /// Serves what the workload has, on a socket in a folder that is private.
    ///
    /// # Errors
    /// When the socket cannot be made.
    pub fn start(path: PathBuf, workload: watch::Receiver<Option<Arc<Workload>>>) -> io::Result<Self> {
        let listener = UnixListener::bind(&path)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600))?;
        let source = Source(Arc::new(Shared { worlds: watch::Sender::new(None), state: Mutex::default() }));
        let sds = service::sds(Arc::new(source.clone()), concat!("maille-", env!("CARGO_PKG_VERSION")));
        let server = tonic::transport::Server::builder().add_service(sds);
        let serving = async move {
            if let Err(error) = server.serve_with_incoming(UnixListenerStream::new(listener)).await {
                tracing::error!(%error, "the secrets are not served any more");
            }
        };
        Ok(Self { path, serving: vec![tokio::spawn(serving), tokio::spawn(source.follow(workload))] })
    }

    /// Its socket.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Sds {
    fn drop(&mut self) {
        self.serving.iter().for_each(JoinHandle::abort);
        let _ = fs::remove_file(&self.path);
    }
}

#[derive(Clone)]
struct Source(Arc<Shared>);

struct Shared {
    worlds: watch::Sender<Option<World>>,
    /// The files that were asked for, and what the workload has.
    state: Mutex<(BTreeSet<String>, Option<Arc<Workload>>)>,
}

impl Source {
    async fn follow(self, mut workload: watch::Receiver<Option<Arc<Workload>>>) {
        loop {
            self.change(|_, own| own.clone_from(&workload.borrow_and_update()));
            if workload.changed().await.is_err() {
                return;
            }
        }
    }

    fn change(&self, change: impl FnOnce(&mut BTreeSet<String>, &mut Option<Arc<Workload>>)) {
        let mut state = self.0.state.lock().unwrap_or_else(PoisonError::into_inner);
        let (names, own) = &mut *state;
        change(names, own);
        // Nothing is answered before there is a certificate: a proxy waits for it rather than doing without.
        self.0.worlds.send_replace(own.as_ref().map(|own| world(names, own)));
    }
}

impl WorldSource for Source {
    fn connect(&self, _: Node, _: &Extensions) -> Result<Connection, Status> {
        Ok(Connection { worlds: self.0.worlds.subscribe(), observer: Box::new(Asking(self.clone())) })
    }
}

struct Asking(Source);

impl Observer for Asking {
    fn asked(&mut self, names: &[String]) {
        let is_file = |name: &&String| name.starts_with(FILE_CERTIFICATE) || name.starts_with(FILE_ROOTS);
        let files: Vec<String> = names.iter().filter(is_file).cloned().collect();
        if !files.is_empty() {
            self.0.change(|names, _| {
                names.extend(files);
                while names.len() > MAX_NAMES {
                    names.pop_last();
                }
            });
        }
    }

    fn received(&mut self, received: &Received) {
        if let Received::Nack(_, refusals) = received {
            for refusal in refusals {
                tracing::warn!(name = refusal.name.as_deref(), reason = %refusal.reason, "the proxy refuses a secret");
            }
        }
    }

    fn sent(&mut self, _: TypeUrl, _: usize, _: usize) {}

    fn status(&mut self, _: Vec<TypeStatus>) {}
}

fn world(names: &BTreeSet<String>, own: &Workload) -> World {
    let bytes = |text: String| {
        Some(DataSource { specifier: Some(Specifier::InlineBytes(text.into_bytes())), ..Default::default() })
    };
    let certificate = Type::TlsCertificate(TlsCertificate {
        certificate_chain: bytes(pem::encode_certificates(&own.chain)),
        private_key: bytes(pem::encode_key(&own.key)),
        ..Default::default()
    });
    let roots = Type::ValidationContext(CertificateValidationContext {
        trusted_ca: bytes(pem::encode_certificates(&own.roots)),
        ..Default::default()
    });
    let own = [(CERTIFICATE.to_owned(), certificate), (ROOTS.to_owned(), roots)];
    let files = names.iter().filter_map(|name| Some((name.clone(), from_file(name)?)));
    let mut world = World::new();
    for (name, found) in own.into_iter().chain(files) {
        let secret = Secret { name: name.clone(), r#type: Some(found) };
        world.encode(TypeUrl::Secret, name, &secret);
    }
    world
}

/// Files of the machine that the proxy is on, too: it reads them itself, and again when they are replaced.
fn from_file(name: &str) -> Option<Type> {
    let file =
        |path: &str| Some(DataSource { specifier: Some(Specifier::Filename(path.to_owned())), ..Default::default() });
    let folder = |path: &str| {
        let folder = Path::new(path).parent()?.to_str()?.to_owned();
        Some(WatchedDirectory { path: folder, ..Default::default() })
    };
    if let Some(files) = name.strip_prefix(FILE_CERTIFICATE) {
        let (chain, key) = files.split_once('~')?;
        return Some(Type::TlsCertificate(TlsCertificate {
            certificate_chain: file(chain),
            private_key: file(key),
            watched_directory: folder(chain),
            ..Default::default()
        }));
    }
    let path = match name.strip_prefix(FILE_ROOTS)? {
        SYSTEM => SYSTEM_ROOTS.into_iter().find(|path| Path::new(path).is_file())?,
        path => path,
    };
    Some(Type::ValidationContext(CertificateValidationContext {
        trusted_ca: file(path),
        watched_directory: folder(path),
        ..Default::default()
    }))
}
