//! Other proxies, asked the same.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

/// nginx or HAProxy.
pub(crate) struct Peer {
    child: Child,
    _folder: tempfile::TempDir,
}

impl Peer {
    /// Starts it between an address and a server; `None` when this machine has none.
    pub(crate) fn start(name: &str, at: SocketAddr, server: SocketAddr) -> Option<Peer> {
        let program = find(name)?;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("conf");
        let place = folder.path().display();
        let mut command = Command::new(program);
        match name {
            "nginx" => {
                let text = format!(
                    "daemon off; master_process off; error_log /dev/null; pid {place}/pid;\n\
                     events {{ }}\n\
                     http {{ access_log off; client_body_temp_path {place}/b; proxy_temp_path {place}/p; fastcgi_temp_path {place}/f;\n\
                     uwsgi_temp_path {place}/u; scgi_temp_path {place}/s;\n\
                     server {{ listen {at}; location / {{ proxy_pass http://{server}; proxy_http_version 1.1;\n\
                     proxy_set_header Host $http_host; proxy_set_header Connection \"\"; proxy_request_buffering off; }} }} }}\n"
                );
                std::fs::write(&path, text).unwrap();
                command.arg("-p").arg(folder.path()).arg("-c").arg(&path);
            }
            _ => {
                let text = format!(
                    "defaults\n mode http\n timeout client 5s\n timeout server 5s\n timeout connect 5s\n\
                     frontend f\n bind {at}\n default_backend b\n\
                     backend b\n server s {server}\n"
                );
                std::fs::write(&path, text).unwrap();
                command.arg("-db").arg("-q").arg("-f").arg(&path);
            }
        }
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        Some(Peer { child, _folder: folder })
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn find(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    let folders = std::env::split_paths(&path).chain(["/usr/sbin".into()]);
    folders.map(|folder| folder.join(name)).find(|program| program.is_file())
}
