use super::*;

fn scratch(name: &str) -> PathBuf {
    let path = std::env::temp_dir().join(format!("maille-log-{}-{name}", std::process::id()));
    let _ = std::fs::remove_file(&path);
    path
}

#[test]
fn lines_of_all_workers_arrive_whole() {
    let path = scratch("whole");
    {
        let logs = Logs::start().unwrap();
        let sink = logs.sink(&Target::File(path.clone())).unwrap();
        assert!(Arc::ptr_eq(&sink, &logs.sink(&Target::File(path.clone())).unwrap()));
        thread::scope(|scope| {
            for worker in 0..4 {
                let mut writer = sink.writer();
                scope.spawn(move || {
                    for line in 0..5000 {
                        writeln!(writer.buffer(), "worker {worker} line {line} {}", "x".repeat(50)).unwrap();
                    }
                });
            }
        });
        assert_eq!(logs.dropped(), 0);
    }
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    let mut next = [0; 4];
    for line in text.lines() {
        let words: Vec<&str> = line.split(' ').collect();
        let worker: usize = words[1].parse().unwrap();
        assert_eq!(words[3].parse::<i32>().unwrap(), next[worker], "{line}");
        next[worker] += 1;
    }
    assert_eq!(next, [5000; 4]);
}

#[test]
fn what_cannot_be_written_is_dropped_and_counted() {
    let (queue, messages) = mpsc::sync_channel(1);
    let sink = Arc::new(Sink {
        queue,
        output: Arc::new(Mutex::new(Output::Stderr(io::stderr()))),
        spare: Mutex::default(),
        dropped: AtomicU64::new(0),
    });
    let mut writer = sink.writer();
    for _ in 0..3 {
        writer.buffer().extend_from_slice(b"line\n");
        writer.flush();
    }
    assert_eq!(sink.dropped.load(Ordering::Relaxed), 10, "one chunk waits, two did not fit");
    drop(messages);
}

#[test]
fn a_file_that_cannot_be_opened_is_an_error() {
    let logs = Logs::start().unwrap();
    assert!(logs.sink(&Target::File("/nonexistent/folder/log".into())).is_err());
}
