//! Child processes that are measured: pinned to a core, their CPU time and memory read from /proc, stopped on drop.

use anyhow::Context;
use rustix::process::{Pid, Resource, Rlimit, Signal, getrlimit, kill_process, setrlimit};
use rustix::thread::{CpuSet, sched_setaffinity};
use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// The core that the proxy under test has to itself; load and backend share the other ones.
pub(crate) const PROXY_CORE: usize = 0;

/// A process of ours, ended (SIGTERM, then SIGKILL) when dropped.
pub(crate) struct Process {
    child: Child,
    pub(crate) name: String,
}

impl Process {
    /// Starts `program` with its output in `log`.
    pub(crate) fn start(name: &str, program: &Path, args: &[&str], log: &Path) -> anyhow::Result<Self> {
        let out = fs::OpenOptions::new().create(true).append(true).open(log)?;
        let child = Command::new(program)
            .args(args)
            .stdin(Stdio::null())
            .stdout(out.try_clone()?)
            .stderr(out)
            .spawn()
            .with_context(|| format!("{name}: cannot start {}", program.display()))?;
        Ok(Self { child, name: name.to_owned() })
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Asks it to end (SIGTERM).
    pub(crate) fn terminate(&self) {
        if let Some(pid) = Pid::from_raw(self.child.id() as i32) {
            let _ = kill_process(pid, Signal::TERM);
        }
    }

    /// Its exit code, once it has ended; none inside is a signal.
    pub(crate) fn ended(&mut self) -> Option<Option<i32>> {
        self.child.try_wait().ok().flatten().map(|status| status.code())
    }

    /// Ends it at once, as a crash would.
    pub(crate) fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Ok(None) = self.child.try_wait() {
            self.terminate();
            let end = Instant::now() + Duration::from_secs(10);
            while Instant::now() < end {
                if !matches!(self.child.try_wait(), Ok(None)) {
                    return;
                }
                std::thread::sleep(Duration::from_millis(20));
            }
            eprintln!("{} did not end on SIGTERM within 10 s", self.name);
            self.kill();
        }
    }
}

/// CPU time of all threads of a process so far, in nanoseconds.
pub(crate) fn cpu_nanos(pid: u32) -> u64 {
    let Ok(tasks) = fs::read_dir(format!("/proc/{pid}/task")) else { return 0 };
    tasks
        .flatten()
        .filter_map(|t| fs::read_to_string(t.path().join("schedstat")).ok()?.split(' ').next()?.parse::<u64>().ok())
        .sum()
}

/// Resident memory in MB.
pub(crate) fn rss_mb(pid: u32) -> f64 {
    fs::read_to_string(format!("/proc/{pid}/status"))
        .ok()
        .and_then(|s| s.lines().find(|l| l.starts_with("VmRSS:"))?.split_whitespace().nth(1)?.parse::<f64>().ok())
        .unwrap_or(0.0)
        / 1024.0
}

/// The name of a process's program, as the kernel has it.
pub(crate) fn comm(pid: u32) -> String {
    fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default()
}

/// Lets this process, and those it starts from now on, open so many files.
pub(crate) fn raise_file_limit(wanted: u64) -> anyhow::Result<()> {
    let limit = getrlimit(Resource::Nofile);
    let enough = limit.maximum.is_none_or(|max| max >= wanted);
    anyhow::ensure!(
        enough,
        "this needs {wanted} open files, and the hard limit is {:?}: see `ulimit -Hn`",
        limit.maximum
    );
    if limit.current.is_some_and(|now| now < wanted) {
        setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), ..limit })?;
    }
    Ok(())
}

/// The direct children of a process.
pub(crate) fn children(pid: u32) -> Vec<u32> {
    let Ok(tasks) = fs::read_dir(format!("/proc/{pid}/task")) else { return vec![] };
    tasks
        .flatten()
        .filter_map(|t| fs::read_to_string(t.path().join("children")).ok())
        .flat_map(|s| s.split_whitespace().filter_map(|p| p.parse().ok()).collect::<Vec<u32>>())
        .collect()
}

/// Moves every thread of a process to one core.
pub(crate) fn pin(pid: u32, core: usize) {
    let mut set = CpuSet::new();
    set.set(core);
    let Ok(tasks) = fs::read_dir(format!("/proc/{pid}/task")) else { return };
    for task in tasks.flatten() {
        if let Some(tid) = task.file_name().to_str().and_then(|t| t.parse().ok()).and_then(Pid::from_raw) {
            let _ = sched_setaffinity(Some(tid), &set);
        }
    }
}

/// Has all threads of a process run before whatever else wants their core; what they start from now on has no such right. False where that
/// is not allowed.
pub(crate) fn run_first(pid: u32) -> bool {
    let set = Command::new("chrt").args(["-a", "-R", "-f", "-p", "1", &pid.to_string()]).stderr(Stdio::null()).status();
    set.is_ok_and(|status| status.success())
}

/// How long the calling thread has waited for its core so far, in nanoseconds.
pub(crate) fn waited_nanos() -> u64 {
    let text = fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    text.split(' ').nth(1).and_then(|n| n.parse().ok()).unwrap_or(0)
}

/// Moves this process away from the proxy's core, where there is another one.
pub(crate) fn step_aside() {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    if cores > 1 {
        let mut set = CpuSet::new();
        (0..cores).filter(|c| *c != PROXY_CORE).for_each(|c| set.set(c));
        let _ = sched_setaffinity(None, &set);
    }
}

/// Waits until something accepts connections on a port of this machine's loopback.
pub(crate) fn await_port(port: u16, what: &str) -> anyhow::Result<()> {
    let end = Instant::now() + Duration::from_secs(30);
    while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
        anyhow::ensure!(Instant::now() < end, "{what} does not accept connections on 127.0.0.1:{port} after 30 s");
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}

/// A port that nothing listens on right now.
pub(crate) fn free_port() -> anyhow::Result<u16> {
    Ok(maille_net::free_port(std::net::Ipv4Addr::LOCALHOST.into())?)
}

/// Finds a program: the variable's value, else the first of the names on the PATH (and in /usr/sbin).
pub(crate) fn find(variable: &str, names: &[&str]) -> Option<std::path::PathBuf> {
    if let Some(p) = std::env::var_os(variable) {
        return Some(p.into());
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut dirs: Vec<_> = std::env::split_paths(&path).collect();
    dirs.push("/usr/sbin".into());
    names.iter().find_map(|n| dirs.iter().map(|d| d.join(n)).find(|p| p.is_file()))
}
