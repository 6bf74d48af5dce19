//! `maille up` and `maille run` as processes: what they pass through, how they end, and what they leave behind.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

const MAILLE: &str = env!("CARGO_BIN_EXE_maille");

fn free_port() -> u16 {
    maille_net::free_port(std::net::Ipv4Addr::LOCALHOST.into()).unwrap()
}

fn eventually<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + Duration::from_secs(30);
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < end, "never came: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn kill(signal: &str, pid: u32) {
    assert!(Command::new("kill").args([signal, &pid.to_string()]).status().unwrap().success());
}

/// A `maille up` with a folder of its own, and a runtime folder that nobody else uses.
struct Up {
    child: Child,
    dir: tempfile::TempDir,
    control: String,
    port: u16,
}

impl Up {
    fn start(files: &[(&str, &str)]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        for folder in ["config", "runtime"] {
            fs::create_dir(dir.path().join(folder)).unwrap();
        }
        for (name, text) in files {
            fs::write(dir.path().join("config").join(name), text).unwrap();
        }
        let port = free_port();
        let child = Self::spawn(dir.path(), port);
        Self { child, dir, control: format!("127.0.0.1:{port}"), port }
    }

    /// On the same port and folders as before.
    fn start_again(&mut self) {
        self.child = Self::spawn(self.dir.path(), self.port);
    }

    fn spawn(dir: &Path, port: u16) -> Child {
        let log = fs::File::options().create(true).append(true).open(dir.join("log")).unwrap();
        let mut command = Command::new(MAILLE);
        command.args(["up", "--xds-port", &port.to_string(), "-f"]).arg(dir.join("config"));
        command.env("XDG_RUNTIME_DIR", dir.join("runtime"));
        command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap()
    }

    fn said(&self) -> String {
        fs::read_to_string(self.dir.path().join("log")).unwrap()
    }

    fn save(&self, name: &str, text: &str) {
        fs::write(self.dir.path().join("config").join(name), text).unwrap();
    }

    fn run(&self, name: &str, more: &[&str], command: &[&str]) -> Command {
        let mut run = Command::new(MAILLE);
        run.args(["run", "--name", name, "--service", name, "--control", &self.control])
            .args(more)
            .arg("--")
            .args(command);
        run.env("XDG_RUNTIME_DIR", self.dir.path().join("runtime"));
        run.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        run
    }

    fn output(&self, name: &str, more: &[&str], command: &[&str]) -> Output {
        self.run(name, more, command).output().unwrap()
    }

    fn runtime_files(&self) -> Vec<String> {
        let walk = Command::new("find").arg(self.dir.path().join("runtime")).args(["-mindepth", "1"]).output().unwrap();
        String::from_utf8_lossy(&walk.stdout).lines().map(str::to_owned).collect()
    }

    /// Ends it as Ctrl-C or a supervisor would; its exit code.
    fn end(&mut self) -> Option<i32> {
        kill("-TERM", self.child.id());
        eventually("the end of maille up", || self.child.try_wait().unwrap()).code()
    }
}

impl Drop for Up {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            self.end();
        }
    }
}

fn children(pid: u32) -> Vec<u32> {
    let text = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    text.split_whitespace().map(|pid| pid.parse().unwrap()).collect()
}

fn is_alive(pid: u32) -> bool {
    let state = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    state.rsplit_once(')').is_some_and(|(_, rest)| !rest.trim_start().starts_with('Z'))
}

fn gateway(port: u16) -> String {
    format!(
        "apiVersion: networking.istio.io/v1\nkind: Gateway\nmetadata: {{name: edge, namespace: shop}}\nspec:\n  selector: {{istio: ingressgateway}}\n  servers:\n  - {{port: {{number: {port}, name: http, protocol: HTTP}}, hosts: ['*']}}\n"
    )
}

fn direct_response(body: &str) -> String {
    format!(
        "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: edge, namespace: shop}}\nspec:\n  hosts: ['*']\n  gateways: [edge]\n  http: [{{directResponse: {{status: 200, body: {{string: {body}}}}}}}]\n"
    )
}

fn get(port: u16) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    stream.write_all(b"GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

#[test]
fn a_program_has_its_own_input_output_and_exit_code() {
    let up = Up::start(&[]);
    let mut child = up.run("a", &[], &["sh", "-c", "cat; echo err >&2; exit 7"]).stdin(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(b"hello\n").unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.stdout, b"hello\n");
    assert!(output.stderr.ends_with(b"err\n"));
    assert_eq!(output.status.code(), Some(7));

    assert_eq!(up.output("b", &[], &["/nonexistent/program"]).status.code(), Some(127));
    assert_eq!(up.output("c", &[], &["/etc/passwd"]).status.code(), Some(126));
    assert_eq!(up.output("d", &[], &["sh", "-c", "kill -KILL $$"]).status.code(), Some(137));
}

#[test]
fn a_program_finds_its_port_and_its_proxy() {
    let up = Up::start(&[]);
    let script = "echo $PORT $http_proxy $HTTP_PROXY \"[$no_proxy]\"";
    let said = String::from_utf8(up.output("a", &["--port", "9080"], &["sh", "-c", script]).stdout).unwrap();
    let words: Vec<&str> = said.split_whitespace().collect();
    let [port, proxy, same, none] = words[..] else { panic!("{said}") };
    assert!(port.parse::<u16>().unwrap() > 1023);
    assert!(proxy.starts_with("http://127.") && proxy.ends_with(":15080") && proxy == same, "{said}");
    assert_eq!(none, "[]");
    let said = up.output("a", &[], &["sh", "-c", "echo \"[$PORT]\""]).stdout;
    assert_eq!(said, b"[]\n", "without --port there is no port to listen on");
}

#[test]
fn signals_reach_the_program_and_its_end_is_ours() {
    let up = Up::start(&[]);
    let script = "trap 'echo usr1' USR1; trap 'echo term; exit 3' TERM; echo ready; while :; do sleep 0.05; done";
    let mut child = up.run("a", &[], &["sh", "-c", script]).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut next = || lines.next().unwrap().unwrap();
    assert_eq!(next(), "ready");
    kill("-USR1", child.id());
    assert_eq!(next(), "usr1");
    kill("-TERM", child.id());
    assert_eq!(next(), "term");
    assert_eq!(child.wait().unwrap().code(), Some(3));

    let mut child = up.run("a", &[], &["sh", "-c", "echo ready; exec sleep 60"]).spawn().unwrap();
    BufReader::new(child.stdout.take().unwrap()).lines().next();
    kill("-TERM", child.id());
    assert_eq!(child.wait().unwrap().code(), Some(143));
}

#[test]
fn a_program_does_not_outlive_a_killed_maille_run() {
    let up = Up::start(&[]);
    let mut child = up.run("a", &[], &["sh", "-c", "echo $$; exec sleep 60"]).spawn().unwrap();
    let pid: u32 = BufReader::new(child.stdout.take().unwrap()).lines().next().unwrap().unwrap().parse().unwrap();
    assert!(is_alive(pid));
    child.kill().unwrap();
    child.wait().unwrap();
    eventually("the program's end", || (!is_alive(pid)).then_some(()));
}

#[test]
fn a_name_can_be_used_once_at_a_time() {
    let up = Up::start(&[]);
    let mut first = up.run("a", &[], &["sh", "-c", "echo ready; exec sleep 60"]).spawn().unwrap();
    BufReader::new(first.stdout.take().unwrap()).lines().next();
    let second = up.output("a", &[], &["sleep", "60"]);
    assert_eq!(second.status.code(), Some(2));
    let said = String::from_utf8_lossy(&second.stderr).into_owned();
    assert!(said.contains("WorkloadEntry default/a") && said.contains("--name"), "{said}");
    kill("-TERM", first.id());
    first.wait().unwrap();
    assert_eq!(up.output("a", &[], &["true"]).status.code(), Some(0), "free again when the first has ended");
}

#[test]
fn a_taken_service_port_is_named() {
    let up = Up::start(&[]);
    let everywhere = TcpListener::bind("0.0.0.0:0").unwrap();
    let port = everywhere.local_addr().unwrap().port().to_string();
    let output = up.output("a", &["--port", &port], &["true"]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains(&port) && said.contains("0.0.0.0"), "{said}");
}

#[test]
fn up_serves_reports_and_leaves_nothing_behind() {
    let port = free_port();
    let mut up = Up::start(&[("gateway.yaml", &gateway(port)), ("routes.yaml", &direct_response("one"))]);
    eventually("the first answer", || get(port).ok().filter(|answer| answer.ends_with("one")));
    eventually("the screen", || up.said().contains(&format!("http://127.0.0.1:{port}")).then_some(()));
    assert!(up.said().contains("nothing wrong"), "{}", up.said());

    up.save("routes.yaml", "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: x\n  spec: [");
    eventually("the fault", || up.said().contains("routes.yaml:").then_some(()));
    assert!(get(port).unwrap().ends_with("one"));
    up.save("routes.yaml", &direct_response("two"));
    eventually("the mended answer", || get(port).ok().filter(|answer| answer.ends_with("two")));
    eventually("a clean screen", || (up.said().matches("nothing wrong").count() == 2).then_some(()));

    let gateways = children(up.child.id());
    assert_eq!(gateways.len(), 1);
    assert_eq!(up.end(), Some(0), "{}", up.said());
    assert!(!is_alive(gateways[0]) && get(port).is_err());
    assert_eq!(up.runtime_files(), [""; 0]);
}

#[test]
fn a_gateway_port_that_somebody_has_is_named_and_opened_when_it_is_free() {
    let squatter = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = squatter.local_addr().unwrap().port();
    let up = Up::start(&[("gateway.yaml", &gateway(port)), ("routes.yaml", &direct_response("one"))]);
    eventually("the refusal", || up.said().contains("another process listens there").then_some(()));
    drop(squatter);
    eventually("an answer", || get(port).ok().filter(|answer| answer.ends_with("one")));
    eventually("a clean screen", || up.said().contains("nothing wrong").then_some(()));
}

#[test]
fn a_selector_that_no_proxy_can_have_is_named_and_spoils_no_other() {
    let port = free_port();
    let bad = gateway(free_port()).replace("istio: ingressgateway", "'a,b': 'c=d'").replace("name: edge", "name: bad");
    let up = Up::start(&[("a.yaml", &gateway(port)), ("b.yaml", &bad), ("routes.yaml", &direct_response("one"))]);
    eventually("the fault", || up.said().contains("it cannot be started: `a,b`").then_some(()));
    eventually("an answer", || get(port).ok().filter(|answer| answer.ends_with("one")));
}

#[test]
fn gateways_come_and_go_with_their_gateway_and_die_with_a_killed_up() {
    let (first, second) = (free_port(), free_port());
    let mut up = Up::start(&[("a.yaml", &gateway(first)), ("routes.yaml", &direct_response("one"))]);
    eventually("the first gateway", || get(first).ok());
    let other = gateway(second).replace("istio: ingressgateway", "app: other").replace("name: edge", "name: other");
    up.save("b.yaml", &other);
    eventually("the second gateway", || get(second).ok());
    assert_eq!(children(up.child.id()).len(), 2);
    fs::remove_file(up.dir.path().join("config/b.yaml")).unwrap();
    eventually("its end", || (children(up.child.id()).len() == 1 && get(second).is_err()).then_some(()));
    assert!(get(first).is_ok());

    // One that is killed is started again.
    let before = children(up.child.id())[0];
    kill("-KILL", before);
    eventually("a new one", || children(up.child.id()).first().filter(|pid| **pid != before).copied());
    let now = eventually("an answer of the new one", || get(first).ok().map(|_| children(up.child.id())[0]));
    up.child.kill().unwrap();
    up.child.wait().unwrap();
    eventually("the gateway's end", || (!is_alive(now)).then_some(()));
}

/// Not a test of its own: a server that takes a second for each answer, and dies of SIGTERM at once.
#[test]
fn job() {
    if std::env::var_os("SLOW_SERVER").is_none() {
        return;
    }
    let port: u16 = std::env::var("PORT").unwrap().parse().unwrap();
    for stream in TcpListener::bind(("127.0.0.1", port)).unwrap().incoming() {
        std::thread::spawn(move || {
            let mut stream = stream.unwrap();
            if stream.read(&mut [0; 4096]).is_ok_and(|n| n > 0) {
                std::thread::sleep(Duration::from_secs(1));
                stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nslow").unwrap();
            }
        });
    }
}

#[test]
fn a_request_under_way_finishes_before_its_program_is_ended() {
    let service = "apiVersion: v1\nkind: Service\nmetadata: {name: web}\nspec: {selector: {app: web}, ports: [{name: http, port: 80, targetPort: 9080}]}\n";
    let up = Up::start(&[("service.yaml", service)]);
    let test = std::env::current_exe().unwrap();
    let mut server = up.run("web", &["--port", "9080"], &[test.to_str().unwrap(), "--exact", "job"]);
    let mut server = server.env("SLOW_SERVER", "1").spawn().unwrap();
    let mut client = up.run("me", &[], &["sh", "-c", "echo $http_proxy; exec sleep 60"]).spawn().unwrap();
    let proxy = BufReader::new(client.stdout.take().unwrap()).lines().next().unwrap().unwrap();
    let ask = move || {
        let mut stream = TcpStream::connect(proxy.trim_start_matches("http://")).ok()?;
        stream.write_all(b"GET http://web/ HTTP/1.1\r\nhost: web\r\nconnection: close\r\n\r\n").ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        Some(answer)
    };
    eventually("an answer", || ask().filter(|answer| answer.ends_with("slow")));
    let under_way = std::thread::spawn(ask);
    std::thread::sleep(Duration::from_millis(300));
    kill("-TERM", server.id());
    let answer = under_way.join().unwrap().unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert_eq!(server.wait().unwrap().code(), Some(143));
    kill("-TERM", client.id());
    client.wait().unwrap();
}

#[test]
fn access_logs_do_not_mix_with_what_the_program_says() {
    let mesh = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: istio, namespace: istio-system}\ndata:\n  mesh: |\n    accessLogFile: /dev/stdout\n    accessLogFormat: \"logged %RESPONSE_CODE%\\n\"\n";
    let up = Up::start(&[("mesh.yaml", mesh)]);
    let output =
        up.output("a", &[], &["curl", "-s", "-o", "/dev/null", "-w", "said %{http_code}\n", "http://127.0.0.1:1/"]);
    assert_eq!(String::from_utf8_lossy(&output.stdout), "said 503\n");
    assert!(
        String::from_utf8_lossy(&output.stderr).contains("logged 503"),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

#[test]
fn traffic_goes_on_while_the_control_plane_is_away_and_the_workload_comes_back() {
    let service = "apiVersion: v1\nkind: Service\nmetadata: {name: web}\nspec: {selector: {app: web}, ports: [{name: http, port: 80, targetPort: 9080}]}\n";
    let mut up = Up::start(&[("service.yaml", service)]);
    let mut server = up.run("web", &["--port", "9080"], &[MAILLE, "demo-app", "details"]).spawn().unwrap();
    let mut client = up.run("me", &[], &["sh", "-c", "echo $http_proxy; exec sleep 60"]).spawn().unwrap();
    let proxy = BufReader::new(client.stdout.take().unwrap()).lines().next().unwrap().unwrap();
    let proxy = proxy.trim_start_matches("http://").to_owned();
    let ask = || {
        let mut stream = TcpStream::connect(&proxy).ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
        stream.write_all(b"GET http://web/ HTTP/1.1\r\nhost: web\r\nconnection: close\r\n\r\n").ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        answer.starts_with("HTTP/1.1 200").then_some(answer)
    };
    eventually("an answer", ask);
    up.child.kill().unwrap();
    up.child.wait().unwrap();
    assert!(ask().unwrap().contains("Shakespeare"), "without a control plane");

    up.start_again();
    up.save(
        "routes.yaml",
        &direct_response("anew").replace("'*'", "web").replace("gateways: [edge]", "").replace("shop", "default"),
    );
    eventually("the new control plane's word", || ask().filter(|answer| answer.ends_with("anew")));
    fs::remove_file(up.dir.path().join("config/routes.yaml")).unwrap();
    eventually("the workload, which has come back", || ask().filter(|answer| answer.contains("Shakespeare")));
    for child in [&mut client, &mut server] {
        kill("-TERM", child.id());
        child.wait().unwrap();
    }
    assert_eq!(up.end(), Some(0));
    assert_eq!(up.runtime_files(), [""; 0]);
}

#[test]
fn a_policy_reaches_clients_that_stay_connected() {
    let port = free_port();
    let up = Up::start(&[("gateway.yaml", &gateway(port)), ("route.yaml", &direct_response("hello"))]);
    eventually("the route", || get(port).ok().filter(|answer| answer.starts_with("HTTP/1.1 200")));
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let mut ask = || {
        stream.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").unwrap();
        let (mut answer, mut byte) = (Vec::new(), [0]);
        while !answer.ends_with(b"hello") {
            stream.read_exact(&mut byte).unwrap();
            answer.push(byte[0]);
        }
        String::from_utf8(answer).unwrap()
    };
    assert!(!ask().contains("connection: close"));
    up.save(
        "policy.yaml",
        "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: nobody, namespace: istio-system}\nspec: {}\n",
    );
    eventually("the policy", || get(port).ok().filter(|answer| answer.starts_with("HTTP/1.1 403")));
    // It began when everybody was let in, so it may end; but it is not asked anything else.
    assert!(ask().contains("connection: close"));
    assert_eq!(stream.read(&mut [0]).unwrap(), 0);
}
