//! The contenders as gateways: maille and Envoy under the same control plane, nginx, HAProxy, and the floor.

use crate::contest::Contender;
use crate::identity::Identity;
use crate::mesh;
use crate::process::{self, Process, await_port, free_port};
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

/// What a gateway is to do.
#[derive(Clone, Copy)]
pub(crate) enum Job<'a> {
    /// HTTP/1.1 to an HTTP/1.1 backend.
    Http1,
    /// The same, and `/big` to a backend of its own, on this port.
    Beside(u16),
    /// HTTP/2 to an HTTP/2 backend (gRPC).
    Grpc,
    /// TLS from the client, HTTP/1.1 to the backend.
    Tls(&'a Identity),
    /// Bytes.
    Tcp,
}

/// Starts those of `names` that there are; what is not on this machine is said and left out.
pub(crate) fn start(
    names: &[&str],
    only: &[String],
    dir: &Path,
    backend: u16,
    job: Job<'_>,
) -> anyhow::Result<Vec<Contender>> {
    let mut all = vec![];
    for name in names {
        if !only.is_empty() && !only.iter().any(|o| o == name) {
            continue;
        }
        let dir = &dir.join(name);
        std::fs::create_dir_all(dir)?;
        let started = match *name {
            "floor" => floor(backend)?,
            "maille" => ours(dir, backend, "maille", job)?,
            "envoy" => ours(dir, backend, "envoy", job)?,
            "nginx" => nginx(dir, backend, job)?,
            "haproxy" => haproxy(dir, backend, job)?,
            other => anyhow::bail!("no contender is called {other}"),
        };
        match started {
            Some(c) => {
                await_port(c.address.port(), c.name)?;
                c.pin();
                all.push(c);
            }
            None => println!("{name}: not found on this machine, left out"),
        }
    }
    Ok(all)
}

pub(crate) fn local(port: u16) -> SocketAddr {
    ([127, 0, 0, 1], port).into()
}

fn floor(backend: u16) -> anyhow::Result<Option<Contender>> {
    let port = free_port()?;
    let (listen, to) = (format!("127.0.0.1:{port}"), format!("127.0.0.1:{backend}"));
    let p = Process::start(
        "floor",
        &std::env::current_exe()?,
        &["floor", "--listen", &listen, "--to", &to],
        Path::new("/dev/null"),
    )?;
    Ok(Some(Contender { name: "floor", address: local(port), pids: vec![p.pid()], _processes: vec![p] }))
}

/// maille's proxy or Envoy, both under the same control plane and so with the same configuration.
fn ours(dir: &Path, backend: u16, proxy: &'static str, job: Job<'_>) -> anyhow::Result<Option<Contender>> {
    if proxy == "envoy" && process::find("ENVOY", &["envoy"]).is_none() {
        return Ok(None);
    }
    let config = dir.join("config");
    std::fs::create_dir(&config)?;
    let port = free_port()?;
    let protocol = match job {
        Job::Http1 | Job::Beside(_) | Job::Tls(_) => "HTTP",
        Job::Grpc => "GRPC",
        Job::Tcp => "TCP",
    };
    match job {
        Job::Tls(identity) => mesh::write(&config, "gateway.yaml", &mesh::tls_gateway(port, identity))?,
        Job::Tcp => mesh::write(&config, "gateway.yaml", &mesh::gateway_of(port, "TCP"))?,
        Job::Http1 | Job::Beside(_) | Job::Grpc => mesh::write(&config, "gateway.yaml", &mesh::gateway(port))?,
    }
    mesh::write(&config, "service.yaml", &mesh::service_of("shop", protocol, &[(backend, "v1")]))?;
    let routes = match job {
        Job::Tcp => mesh::tcp_service("shop"),
        Job::Beside(other) => {
            mesh::write(&config, "other.yaml", &mesh::service("other", &[(other, "v1")]))?;
            let routes = "  - {match: [{uri: {exact: /big}}], route: [{destination: {host: other.example}}]}\n  - route: [{destination: {host: shop.example}}]\n";
            mesh::virtual_service("shop", "bench.example", routes)
        }
        _ => mesh::virtual_service("shop", "bench.example", "  - route: [{destination: {host: shop.example}}]\n"),
    };
    mesh::write(&config, "routes.yaml", &routes)?;
    let up = mesh::up(&config, free_port()?, proxy, &dir.join("up.log"))?;
    await_port(port, proxy)?;
    let pid = mesh::gateway_pid(&up)?;
    std::thread::sleep(Duration::from_secs(1));
    Ok(Some(Contender { name: proxy, address: local(port), pids: vec![pid], _processes: vec![up] }))
}

fn nginx(dir: &Path, backend: u16, job: Job<'_>) -> anyhow::Result<Option<Contender>> {
    let Some(program) = process::find("NGINX", &["nginx"]) else { return Ok(None) };
    let port = free_port()?;
    let at = dir.display();
    let mut listen = format!("listen 127.0.0.1:{port}");
    if let Job::Tls(identity) = job {
        let (certificate, key) = pem(dir, identity)?;
        listen = format!(
            "{listen} ssl; ssl_certificate {certificate}; ssl_certificate_key {key}; ssl_protocols TLSv1.2 TLSv1.3; ssl_ecdh_curve X25519:prime256v1; ssl_session_cache off; ssl_session_tickets off"
        );
    }
    let text = format!(
        "worker_processes 1; daemon off; pid {at}/pid; error_log {at}/error.log;
events {{ worker_connections 16384; }}
http {{
  access_log off; keepalive_requests 1000000000; client_max_body_size 0; client_body_buffer_size 2m; client_body_temp_path {at}/b; proxy_temp_path {at}/p;
  fastcgi_temp_path {at}/f; uwsgi_temp_path {at}/u; scgi_temp_path {at}/s;
  upstream shop {{ server 127.0.0.1:{backend}; keepalive 256; keepalive_requests 1000000000; }}
  server {{
    {listen};
    location / {{
      proxy_pass http://shop; proxy_http_version 1.1; proxy_set_header Connection \"\"; proxy_set_header Host $host;
      proxy_set_header X-Request-Id $request_id; proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
      proxy_set_header X-Forwarded-Proto $scheme; proxy_request_buffering off; proxy_buffers 8 64k; proxy_buffer_size 64k; proxy_max_temp_file_size 0;
    }}
  }}
}}
"
    );
    let config = dir.join("nginx.conf");
    std::fs::write(&config, text)?;
    let p = Process::start(
        "nginx",
        &program,
        &["-c", &config.display().to_string(), "-p", &at.to_string()],
        &dir.join("log"),
    )?;
    await_port(port, "nginx")?;
    let worker =
        process::children(p.pid()).first().copied().ok_or_else(|| anyhow::anyhow!("nginx has no worker process"))?;
    Ok(Some(Contender { name: "nginx", address: local(port), pids: vec![worker], _processes: vec![p] }))
}

fn haproxy(dir: &Path, backend: u16, job: Job<'_>) -> anyhow::Result<Option<Contender>> {
    let Some(program) = process::find("HAPROXY", &["haproxy"]) else { return Ok(None) };
    let (port, config) = (free_port()?, dir.join("haproxy.cfg"));
    let (mode, tls) = match job {
        Job::Tls(identity) => {
            let both = dir.join("both.pem");
            std::fs::write(&both, format!("{}{}", identity.certificate, identity.key))?;
            ("http", format!(" ssl crt {} no-tls-tickets curves X25519:P-256", both.display()))
        }
        Job::Tcp => ("tcp", String::new()),
        _ => ("http", String::new()),
    };
    let mut text = String::new();
    write!(
        text,
        "global
  nbthread 1
  maxconn 9500
  tune.ssl.cachesize 0
defaults
  mode {mode}
  timeout connect 5s
  timeout client 60s
  timeout server 60s
"
    )?;
    if mode == "http" {
        text += "  http-reuse always\n";
    }
    write!(text, "frontend f\n  bind 127.0.0.1:{port}{tls}\n")?;
    if mode == "http" {
        text += "  unique-id-format %{+X}o%ci:%cp_%fi:%fp_%Ts_%rt:%pid
  unique-id-header x-request-id
  option forwardfor
  http-request set-header x-forwarded-proto http
";
    }
    write!(text, "  default_backend b\nbackend b\n  server s 127.0.0.1:{backend}\n")?;
    std::fs::write(&config, text)?;
    let p =
        Process::start("haproxy", &program, &["-db", "-f", &config.display().to_string()], &dir.join("haproxy.log"))?;
    Ok(Some(Contender { name: "haproxy", address: local(port), pids: vec![p.pid()], _processes: vec![p] }))
}

fn pem(dir: &Path, identity: &Identity) -> anyhow::Result<(String, String)> {
    let (certificate, key) = (dir.join("certificate.pem"), dir.join("key.pem"));
    std::fs::write(&certificate, &identity.certificate)?;
    std::fs::write(&key, &identity.key)?;
    Ok((certificate.display().to_string(), key.display().to_string()))
}
