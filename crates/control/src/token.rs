//! The bearer token that lets clients in, in a file only its user can read.
//!
//! The file is `PORT.token` in `$XDG_RUNTIME_DIR/maille`, else in `~/.local/state/maille`, else in `/tmp/maille-UID`.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;
use rustix::process::geteuid;

/// Bytes of randomness in a token.
const ENTROPY: usize = 32;

/// No token file of ours is longer.
const MAX_LENGTH: u64 = 256;

/// A token and the file it is in.
#[derive(Debug)]
pub struct TokenFile {
    secret: Secret,
    path: PathBuf,
}

/// Keeps the token out of debug output.
struct Secret(String);

/// Why there is no token.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// No file holds a token for this port.
    #[error(
        "no token for port {port}: no control plane of this user seems to run there (looked for {}); start one with `maille up`, \
         or check --control",
        .looked.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", ")
    )]
    NotFound {
        /// The control plane's port.
        port: u16,
        /// Where a token was looked for.
        looked: Vec<PathBuf>,
    },
    /// A file or folder is there, and others than us could have written or read it.
    #[error("{} is not safe to use: {reason}; remove it, or fix its owner and mode", .path.display())]
    Unsafe {
        /// The file or folder.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The file system failed.
    #[error("{}: {source}", .path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What happened.
        source: io::Error,
    },
}

/// Leaves a token for the control plane on this port, in the first folder that can be had.
///
/// A token that an earlier run on the same port left there is used again, since proxies that outlived it still show it.
pub fn create(port: u16) -> Result<TokenFile, TokenError> {
    let mut failure = None;
    for folder in folders() {
        match TokenFile::create_in(&folder, port) {
            Ok(file) => return Ok(file),
            Err(error) => failure = failure.or(Some(error)),
        }
    }
    Err(failure.unwrap_or(TokenError::NotFound { port, looked: Vec::new() }))
}

/// Reads the token of the control plane on this port.
pub fn find(port: u16) -> Result<String, TokenError> {
    let folders = folders();
    for folder in &folders {
        if let Some(token) = find_in(folder, port)? {
            return Ok(token);
        }
    }
    Err(TokenError::NotFound { port, looked: folders.iter().map(|folder| path(folder, port)).collect() })
}

/// Where the control plane on this port listens with TLS, and the roots to check it by, in PEM; as it has left them on
/// this machine.
pub fn find_tls(port: u16) -> Result<(std::net::SocketAddr, String), TokenError> {
    let folders = folders();
    for folder in &folders {
        let tls = path(folder, port).with_extension("tls");
        let Some(text) = read_private(&tls, MAX_LENGTH)? else { continue };
        let unreadable = || TokenError::Unsafe { path: tls.clone(), reason: "there is no address in it".into() };
        let mut address: std::net::SocketAddr = text.trim().parse().map_err(|_| unreadable())?;
        if address.ip().is_unspecified() {
            address.set_ip(std::net::Ipv4Addr::LOCALHOST.into());
        }
        let roots = path(folder, port).with_extension("ca.pem");
        let text = fs::read_to_string(&roots).map_err(|source| TokenError::Io { path: roots, source })?;
        return Ok((address, text));
    }
    Err(TokenError::NotFound { port, looked: folders.iter().map(|folder| path(folder, port)).collect() })
}

impl TokenFile {
    /// Leaves a token in the given folder, which is made if it is not there.
    pub fn create_in(folder: &Path, port: u16) -> Result<Self, TokenError> {
        make_private(folder)?;
        let path = path(folder, port);
        if let Some(token) = find_in(folder, port)? {
            return Ok(Self { secret: Secret(token), path });
        }
        let io_error = |source| TokenError::Io { path: path.clone(), source };
        let mut random = [0; ENTROPY];
        File::open("/dev/urandom").and_then(|mut file| file.read_exact(&mut random)).map_err(io_error)?;
        let token: String = random.iter().map(|byte| format!("{byte:02x}")).collect();
        write_private(&path, token.as_bytes()).map_err(io_error)?;
        Ok(Self { secret: Secret(token), path })
    }

    /// The token itself.
    pub fn secret(&self) -> &str {
        &self.secret.0
    }

    /// The file it is in.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether this is the token, in a time that says nothing about how much of it is right.
    pub(crate) fn matches(&self, shown: &[u8]) -> bool {
        let expected = self.secret.0.as_bytes();
        expected.len() == shown.len() && expected.iter().zip(shown).fold(0, |differs, (a, b)| differs | (a ^ b)) == 0
    }

    /// Says where this control plane listens with TLS, for those who find the token.
    pub(crate) fn leave_tls_address(&self, address: std::net::SocketAddr) -> io::Result<()> {
        write_private(&self.path.with_extension("tls"), address.to_string().as_bytes())
    }

    /// Where the control plane remembers the workloads that were there.
    pub(crate) fn leases_path(&self) -> PathBuf {
        self.path.with_extension("leases")
    }

    pub(crate) fn remove(&self) {
        remove(&self.path.with_extension("tls"));
        remove(&self.path);
    }
}

/// Writes a file that only its owner can read, as a whole or not at all.
pub(crate) fn write_private(path: &Path, content: &[u8]) -> io::Result<()> {
    let draft = path.with_extension(format!("{}.new", std::process::id()));
    // A draft of ours can only be left over from a process that had our id before.
    remove(&draft);
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&draft)?;
    let written = file.write_all(content).and_then(|()| fs::rename(&draft, path));
    if written.is_err() {
        remove(&draft);
    }
    written
}

/// Writes behind what is in a file that only its owner can read; makes it when there is none.
pub(crate) fn append_private(path: &Path, content: &[u8]) -> io::Result<()> {
    let flags = OFlags::NOFOLLOW.bits().cast_signed();
    let mut file = OpenOptions::new().append(true).create(true).mode(0o600).custom_flags(flags).open(path)?;
    owned_and_private(&file.metadata()?).map_err(io::Error::other)?;
    file.write_all(content)
}

/// Reads a file that nobody else can have written or read; `None` when there is none.
pub(crate) fn read_private(path: &Path, limit: u64) -> Result<Option<String>, TokenError> {
    let io_error = |source| TokenError::Io { path: path.to_path_buf(), source };
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let file = match OpenOptions::new().read(true).custom_flags(flags.bits().cast_signed()).open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(io_error(error)),
    };
    let metadata = file.metadata().map_err(io_error)?;
    let unsafe_because = |reason: String| TokenError::Unsafe { path: path.to_path_buf(), reason };
    if !metadata.is_file() {
        return Err(unsafe_because("it is not a file".into()));
    }
    owned_and_private(&metadata).map_err(unsafe_because)?;
    let mut text = String::new();
    file.take(limit).read_to_string(&mut text).map_err(io_error)?;
    Ok(Some(text))
}

pub(crate) fn remove(path: &Path) {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            tracing::warn!(path = %path.display(), %error, "cannot remove the file");
        }
        _ => {}
    }
}

fn find_in(folder: &Path, port: u16) -> Result<Option<String>, TokenError> {
    let text = read_private(&path(folder, port), MAX_LENGTH)?;
    Ok(text.map(|text| text.trim().to_owned()).filter(|token| !token.is_empty()))
}

fn path(folder: &Path, port: u16) -> PathBuf {
    folder.join(format!("{port}.token"))
}

fn folders() -> Vec<PathBuf> {
    let from_env = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let mut folders = Vec::new();
    folders.extend(from_env("XDG_RUNTIME_DIR").filter(|path| path.is_dir()).map(|path| path.join("maille")));
    folders.extend(from_env("HOME").map(|path| path.join(".local/state/maille")));
    folders.push(PathBuf::from(format!("/tmp/maille-{}", geteuid().as_raw())));
    folders
}

/// Makes sure the folder is there, ours, and closed to others.
fn make_private(folder: &Path) -> Result<(), TokenError> {
    let io_error = |source| TokenError::Io { path: folder.to_path_buf(), source };
    if let Some(parent) = folder.parent() {
        DirBuilder::new().recursive(true).mode(0o700).create(parent).map_err(io_error)?;
    }
    match DirBuilder::new().mode(0o700).create(folder) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(io_error(error)),
        _ => {}
    }
    // Not following links: in /tmp anybody could have put one there.
    let metadata = fs::symlink_metadata(folder).map_err(io_error)?;
    let unsafe_because = |reason: String| TokenError::Unsafe { path: folder.to_path_buf(), reason };
    if !metadata.is_dir() {
        return Err(unsafe_because("it is not a folder".into()));
    }
    owned_and_private(&metadata).map_err(unsafe_because)
}

fn owned_and_private(metadata: &fs::Metadata) -> Result<(), String> {
    let (owner, me) = (metadata.uid(), geteuid().as_raw());
    if owner != me {
        return Err(format!("it belongs to user {owner}, not to us ({me})"));
    }
    let mode = metadata.mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(format!("others than its owner may use it (mode {mode:03o})"));
    }
    Ok(())
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("…")
    }
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().mode() & 0o777
    }

    #[test]
    fn a_token_is_private_found_again_and_removed() {
        let place = tempfile::tempdir().unwrap();
        let folder = place.path().join("maille");
        let file = TokenFile::create_in(&folder, 15010).unwrap();
        assert_eq!((mode(&folder), mode(file.path())), (0o700, 0o600));
        assert_eq!(file.secret().len(), 2 * ENTROPY);
        assert_eq!(find_in(&folder, 15010).unwrap().as_deref(), Some(file.secret()));
        assert_eq!(find_in(&folder, 15011).unwrap(), None);
        assert!(file.matches(file.secret().as_bytes()) && !file.matches(b"") && !file.matches(&[b'0'; 64]));
        assert!(!format!("{file:?}").contains(file.secret()));

        let again = TokenFile::create_in(&folder, 15010).unwrap();
        assert_eq!(again.secret(), file.secret(), "proxies that outlived the last run still show it");
        let other = TokenFile::create_in(&folder, 15011).unwrap();
        assert_ne!(other.secret(), file.secret());
        file.remove();
        assert_eq!(find_in(&folder, 15010).unwrap(), None);
    }

    #[test]
    fn files_and_folders_that_others_could_use_are_refused() {
        let place = tempfile::tempdir().unwrap();
        let folder = place.path().join("maille");
        let file = TokenFile::create_in(&folder, 1).unwrap();

        fs::set_permissions(file.path(), Permissions::from_mode(0o640)).unwrap();
        let error = find_in(&folder, 1).unwrap_err().to_string();
        assert!(error.contains("1.token") && error.contains("mode 640"), "{error}");

        symlink(file.path(), folder.join("2.token")).unwrap();
        assert!(matches!(find_in(&folder, 2), Err(TokenError::Io { .. })));

        fs::set_permissions(&folder, Permissions::from_mode(0o755)).unwrap();
        let error = TokenFile::create_in(&folder, 3).unwrap_err().to_string();
        assert!(error.contains("mode 755"), "{error}");

        let link = place.path().join("link");
        symlink(&folder, &link).unwrap();
        let error = TokenFile::create_in(&link, 3).unwrap_err().to_string();
        assert!(error.contains("not a folder"), "{error}");
    }
}
