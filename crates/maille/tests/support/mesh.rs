//! A whole mesh for a test: `maille up` on a folder, workloads that join it, a client that asks through its sidecar.
//!
//! Workloads and clients are this test program itself, started again with another job (see `job`).

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// The binary under test.
pub(crate) const MAILLE: &str = env!("CARGO_BIN_EXE_maille");

/// The data planes a test runs on: maille's proxy, and Envoy where there is one (under CI it must be there).
pub(crate) fn data_planes() -> Vec<&'static str> {
    let envoy = std::env::var_os("ENVOY")
        .map(PathBuf::from)
        .or_else(|| std::env::split_paths(&std::env::var_os("PATH")?).map(|d| d.join("envoy")).find(|p| p.is_file()));
    match envoy {
        Some(_) => vec!["maille", "envoy"],
        None => {
            assert!(std::env::var_os("CI").is_none(), "no Envoy: set ENVOY or put envoy on the PATH");
            eprintln!("skipped on Envoy: there is none (set ENVOY or put envoy on the PATH)");
            vec!["maille"]
        }
    }
}

/// A port that nothing listens on right now.
pub(crate) fn free_port() -> u16 {
    maille_net::free_port(std::net::Ipv4Addr::LOCALHOST.into()).unwrap()
}

/// A child that is ended (SIGTERM, then SIGKILL) when dropped.
pub(crate) struct Process {
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts a command, its output in `log`.
    pub(crate) fn start(command: &mut Command, log: PathBuf) -> Self {
        let out = std::fs::File::create(&log).unwrap();
        let child = command.stdin(Stdio::null()).stdout(out.try_clone().unwrap()).stderr(out).spawn().unwrap();
        Self { child, log }
    }

    /// What it has said so far.
    pub(crate) fn said(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = Command::new("kill").arg(self.child.id().to_string()).status();
        let end = Instant::now() + Duration::from_secs(10);
        while Instant::now() < end {
            if matches!(self.child.try_wait(), Ok(Some(_))) {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// `maille up` on a folder.
pub(crate) struct Mesh {
    pub(crate) up: Process,
    workloads: Vec<Process>,
    dir: tempfile::TempDir,
    xds: u16,
    proxy: &'static str,
}

impl Mesh {
    /// Starts the control plane and the gateways of `config` on a data plane.
    pub(crate) fn up(config: &Path, proxy: &'static str) -> Self {
        let (dir, xds) = (tempfile::tempdir().unwrap(), free_port());
        let mut command = Command::new(MAILLE);
        command.args(["up", "--xds-port", &xds.to_string(), "--proxy", proxy, "-f"]).arg(config);
        let up = Process::start(&mut command, dir.path().join("up.log"));
        Self { up, workloads: vec![], dir, xds, proxy }
    }

    fn run(&self, name: &str, service: &str, more: &[&str], job: &str, argument: &str) -> Process {
        let mut command = Command::new(MAILLE);
        command.args(["run", "--name", name, "--service", service, "--control", &format!("127.0.0.1:{}", self.xds)]);
        command
            .args(["--capture", "proxy", "--proxy", self.proxy])
            .args(more)
            .arg("--")
            .arg(std::env::current_exe().unwrap());
        command.args(["--exact", "job", "--nocapture"]).env("MESH_JOB", job).env("MESH_ARGUMENT", argument);
        Process::start(&mut command, self.dir.path().join(format!("{name}.log")))
    }

    /// A server that joins the mesh and answers with its own name.
    pub(crate) fn workload(&mut self, name: &str, service: &str, more: &[&str]) {
        let process = self.run(name, service, more, "serve", name);
        self.workloads.push(process);
    }

    /// Sends `count` requests from inside the mesh; gives the answers as they came, heads and bodies.
    pub(crate) fn ask(&self, url: &str, headers: &str, count: usize) -> Vec<String> {
        let me = self.run("me", "me", &[], "ask", &format!("{url} {count} {headers}"));
        let end = Instant::now() + Duration::from_secs(60);
        loop {
            let said = me.said();
            if let Some((answers, _)) = said.split_once("=== done") {
                return answers.split("=== answer\n").skip(1).map(str::to_owned).collect();
            }
            assert!(Instant::now() < end, "no answers from {url}:\n{said}\nthe mesh said:\n{}", self.up.said());
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Asks until every answer holds, for at most 30 s: joining and configuration take a moment.
    pub(crate) fn ask_until(
        &self,
        url: &str,
        headers: &str,
        count: usize,
        holds: impl Fn(&[String]) -> bool,
    ) -> Vec<String> {
        let end = Instant::now() + Duration::from_secs(30);
        loop {
            let answers = self.ask(url, headers, count);
            if holds(&answers) {
                return answers;
            }
            assert!(Instant::now() < end, "{url} on {}: {answers:#?}\nthe mesh said:\n{}", self.proxy, self.up.said());
        }
    }
}

/// Sends one request to a port of this machine; gives the whole answer.
pub(crate) fn request(port: u16, host: &str, path: &str, headers: &str) -> std::io::Result<String> {
    let mut s = TcpStream::connect(("127.0.0.1", port))?;
    s.set_read_timeout(Some(Duration::from_secs(10)))?;
    write!(s, "GET {path} HTTP/1.1\r\nhost: {host}\r\n{headers}connection: close\r\n\r\n")?;
    let mut answer = String::new();
    s.read_to_string(&mut answer)?;
    Ok(answer)
}

/// A server that answers with its name, for as long as the test lives.
pub(crate) fn serve(listener: TcpListener, name: String) {
    for stream in listener.incoming().flatten() {
        let name = name.clone();
        std::thread::spawn(move || {
            let mut reader = BufReader::new(stream);
            loop {
                let mut line = String::new();
                while reader.read_line(&mut line).unwrap_or(0) > 2 && !line.ends_with("\r\n\r\n") {}
                if !line.ends_with("\r\n\r\n") {
                    return;
                }
                let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{name}\n", name.len() + 1);
                if reader.get_mut().write_all(answer.as_bytes()).is_err() {
                    return;
                }
            }
        });
    }
}

/// What this program does when it was started as a workload or a client; nothing in an ordinary test run.
pub(crate) fn job() {
    let argument = std::env::var("MESH_ARGUMENT").unwrap_or_default();
    match std::env::var("MESH_JOB").as_deref() {
        Ok("serve") => {
            let port: u16 = std::env::var("PORT").unwrap().parse().unwrap();
            serve(TcpListener::bind(("127.0.0.1", port)).unwrap(), argument);
        }
        Ok("ask") => {
            let mut words = argument.splitn(3, ' ');
            let (url, count) = (words.next().unwrap(), words.next().unwrap().parse::<usize>().unwrap());
            let headers = words.next().unwrap_or("").replace(';', "\r\n");
            let proxy = std::env::var("http_proxy").unwrap();
            let host = url.trim_start_matches("http://").split('/').next().unwrap();
            for _ in 0..count {
                let mut s = TcpStream::connect(proxy.trim_start_matches("http://").trim_end_matches('/')).unwrap();
                let extra = if headers.is_empty() { String::new() } else { format!("{headers}\r\n") };
                write!(s, "GET {url} HTTP/1.1\r\nhost: {host}\r\n{extra}connection: close\r\n\r\n").unwrap();
                let mut answer = String::new();
                let _ = s.read_to_string(&mut answer);
                println!("=== answer\n{answer}");
            }
            println!("=== done");
        }
        _ => {}
    }
}
