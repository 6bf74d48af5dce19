//! Where access log lines go: collected by each worker, written by one thread, dropped and counted when that cannot keep up.
//!
//! A worker appends lines to a buffer of its own and hands it over when it is full or somebody flushes: no line costs a
//! lock, an allocation or a system call.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, SyncSender, TrySendError};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};

/// A worker hands its lines over when it has this many bytes of them.
const CHUNK: usize = 64 << 10;

/// So many chunks may wait to be written.
const QUEUE: usize = 64;

/// Where lines go.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Target {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
    /// A file, appended to.
    File(PathBuf),
}

/// The thread that writes, and the places it writes to.
#[derive(Debug)]
pub struct Logs {
    queue: SyncSender<Message>,
    sinks: Mutex<BTreeMap<Target, Arc<Sink>>>,
    thread: Option<JoinHandle<()>>,
}

/// One place that lines go to.
#[derive(Debug)]
pub struct Sink {
    queue: SyncSender<Message>,
    output: Arc<Mutex<Output>>,
    /// Empty buffers on their way back to workers.
    spare: Mutex<Vec<Vec<u8>>>,
    dropped: AtomicU64,
}

/// A worker's end of a sink.
#[derive(Debug)]
pub struct Writer {
    sink: Arc<Sink>,
    buffer: Vec<u8>,
}

#[derive(Debug)]
enum Output {
    Stdout(io::Stdout),
    Stderr(io::Stderr),
    File(File),
}

enum Message {
    Chunk(Arc<Sink>, Vec<u8>),
    Stop,
}

impl Logs {
    /// Starts the thread.
    pub fn start() -> io::Result<Logs> {
        let (queue, messages) = mpsc::sync_channel(QUEUE);
        let thread = thread::Builder::new().name("access-log".into()).spawn(move || write_all(&messages))?;
        Ok(Logs { queue, sinks: Mutex::default(), thread: Some(thread) })
    }

    /// The sink of a target, opened when it is the first time.
    pub fn sink(&self, target: &Target) -> io::Result<Arc<Sink>> {
        let mut sinks = self.sinks.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        if let Some(sink) = sinks.get(target) {
            return Ok(sink.clone());
        }
        let output = match target {
            Target::Stdout => Output::Stdout(io::stdout()),
            Target::Stderr => Output::Stderr(io::stderr()),
            Target::File(path) => Output::File(open(path)?),
        };
        let sink = Arc::new(Sink {
            queue: self.queue.clone(),
            output: Arc::new(Mutex::new(output)),
            spare: Mutex::default(),
            dropped: AtomicU64::new(0),
        });
        sinks.insert(target.clone(), sink.clone());
        Ok(sink)
    }

    /// Opens all files anew: whoever rotates them has given the old ones other names. One that cannot be opened goes on as it is.
    pub fn reopen(&self) -> io::Result<()> {
        let sinks = self.sinks.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let mut result = Ok(());
        for (target, sink) in sinks.iter() {
            let Target::File(path) = target else { continue };
            match open(path) {
                Ok(file) => {
                    *sink.output.lock().unwrap_or_else(|poisoned| poisoned.into_inner()) = Output::File(file);
                }
                Err(error) => result = Err(error),
            }
        }
        result
    }

    /// Bytes that were dropped because they could not be written in time.
    pub fn dropped(&self) -> u64 {
        let sinks = self.sinks.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        sinks.values().map(|sink| sink.dropped.load(Ordering::Relaxed)).sum()
    }
}

impl Drop for Logs {
    /// Waits until everything that was handed over is written.
    fn drop(&mut self) {
        if self.queue.send(Message::Stop).is_ok()
            && let Some(thread) = self.thread.take()
        {
            // A panic there has been reported by its own hook.
            let _ = thread.join();
        }
    }
}

impl Sink {
    /// A worker's end.
    pub fn writer(self: &Arc<Self>) -> Writer {
        Writer { sink: self.clone(), buffer: Vec::new() }
    }

    fn spare(&self) -> Vec<u8> {
        let mut spare = self.spare.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        spare.pop().unwrap_or_default()
    }
}

impl Writer {
    /// Where a line is appended; its line break included.
    pub fn buffer(&mut self) -> &mut Vec<u8> {
        if self.buffer.len() >= CHUNK {
            self.flush();
        }
        &mut self.buffer
    }

    /// Hands the lines over. Call it now and then, or the last ones stay here.
    pub fn flush(&mut self) {
        if self.buffer.is_empty() {
            return;
        }
        let next = self.sink.spare();
        let chunk = std::mem::replace(&mut self.buffer, next);
        if let Err(error) = self.sink.queue.try_send(Message::Chunk(self.sink.clone(), chunk)) {
            let (TrySendError::Full(message) | TrySendError::Disconnected(message)) = error;
            if let Message::Chunk(sink, mut chunk) = message {
                sink.dropped.fetch_add(chunk.len() as u64, Ordering::Relaxed);
                chunk.clear();
                self.buffer = chunk;
            }
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.flush();
    }
}

fn open(path: &Path) -> io::Result<File> {
    File::options().create(true).append(true).open(path)
}

fn write_all(messages: &Receiver<Message>) {
    while let Ok(Message::Chunk(sink, mut chunk)) = messages.recv() {
        let written = {
            let mut output = sink.output.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
            match &mut *output {
                Output::Stdout(stream) => stream.write_all(&chunk).and_then(|()| stream.flush()),
                Output::Stderr(stream) => stream.write_all(&chunk),
                Output::File(file) => file.write_all(&chunk),
            }
        };
        if written.is_err() {
            sink.dropped.fetch_add(chunk.len() as u64, Ordering::Relaxed);
        }
        chunk.clear();
        // A buffer that one huge line made huge is not kept.
        if chunk.capacity() <= 2 * CHUNK {
            let mut spare = sink.spare.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
            if spare.len() < QUEUE {
                spare.push(chunk);
            }
        }
    }
}

#[cfg(test)]
mod tests;
