//! Access logs: each worker's ends of the places that lines go to.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use maille_telemetry::log::{Logs, Target, Writer};

use crate::config::AccessLog;
use crate::headers::LogValues;

/// The thread that writes logs, started with the first line.
#[derive(Clone, Default)]
pub(crate) struct SharedLogs(Arc<OnceLock<Option<Logs>>>);

/// A worker's ends.
pub(crate) struct WorkerLogs {
    shared: SharedLogs,
    /// `None`: it cannot be opened, which has been said.
    writers: RefCell<BTreeMap<Target, Option<Writer>>>,
}

impl SharedLogs {
    /// Opens files anew, after a rotation.
    pub(crate) fn reopen(&self) {
        if let Some(Some(logs)) = self.0.get()
            && let Err(error) = logs.reopen()
        {
            tracing::error!("an access log cannot be opened again and goes on as it is: {error}");
        }
    }

    /// Bytes that could not be written in time.
    pub(crate) fn dropped(&self) -> u64 {
        self.0.get().and_then(Option::as_ref).map_or(0, Logs::dropped)
    }

    fn writer(&self, target: &Target) -> Option<Writer> {
        let logs = self.0.get_or_init(|| match Logs::start() {
            Ok(logs) => Some(logs),
            Err(error) => {
                tracing::error!("access logs cannot be written: {error}");
                None
            }
        });
        match logs.as_ref()?.sink(target) {
            Ok(sink) => Some(sink.writer()),
            Err(error) => {
                tracing::error!(?target, "this access log cannot be written: {error}");
                None
            }
        }
    }
}

impl WorkerLogs {
    pub(crate) fn new(shared: SharedLogs) -> WorkerLogs {
        WorkerLogs { shared, writers: RefCell::default() }
    }

    /// Writes a line to each log that wants it.
    pub(crate) fn write(&self, logs: &[AccessLog], values: &LogValues<'_>) {
        for log in logs.iter().filter(|log| log.wants(values.stream)) {
            let mut writers = self.writers.borrow_mut();
            let writer = match writers.get_mut(&log.target) {
                Some(writer) => writer,
                None => writers.entry(log.target.clone()).or_insert_with(|| self.shared.writer(&log.target)),
            };
            if let Some(writer) = writer {
                log.write(values, writer.buffer());
            }
        }
    }

    /// Hands over what has been collected.
    pub(crate) fn flush(&self) {
        self.writers.borrow_mut().values_mut().flatten().for_each(Writer::flush);
    }
}
