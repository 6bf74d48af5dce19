//! A TLS connection over a socket. Idle, it holds no more than the session's keys: ciphertext is read into memory that all
//! connections of a thread share.

use std::cell::RefCell;
use std::io::{self, IoSlice, Read, Write};
use std::pin::Pin;
use std::task::{Context, Poll, Waker, ready};

use rustls::{CommonState, Connection};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// How much ciphertext is read at once: the largest record.
const RECORD: usize = 16 * 1024 + 256 + 5;

/// More plaintext than this is not decrypted before it is read: below what rustls keeps at most.
const ENOUGH: usize = 16 * 1024;

thread_local! {
    static CIPHERTEXT: RefCell<Box<[u8]>> = RefCell::new(vec![0; RECORD].into());
}

/// One side of a TLS connection.
pub(crate) struct TlsStream {
    tcp: TcpStream,
    session: Connection,
    /// Ciphertext that was read and does not fit into the session yet.
    ahead: Vec<u8>,
    /// Whether the socket has ended.
    ended: bool,
    /// Whether we have said that we will write no more.
    closed: bool,
}

impl TlsStream {
    /// Begins a handshake.
    pub(crate) fn new(tcp: TcpStream, session: Connection) -> TlsStream {
        TlsStream { tcp, session, ahead: Vec::new(), ended: false, closed: false }
    }

    /// The socket below.
    pub(crate) fn socket(&self) -> &TcpStream {
        &self.tcp
    }

    /// What has been agreed on.
    pub(crate) fn state(&self) -> &CommonState {
        &self.session
    }

    /// The session itself.
    pub(crate) fn session(&self) -> &Connection {
        &self.session
    }

    /// Goes on with the handshake; ready when both sides have finished it.
    pub(crate) fn poll_handshake(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            ready!(self.poll_flush(cx))?;
            if !self.session.is_handshaking() {
                return Poll::Ready(Ok(()));
            }
            match self.poll_receive(cx) {
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into())),
                Poll::Ready(Ok(_)) => {}
                Poll::Ready(Err(error)) => {
                    // The alert that tells the other side why, as far as it can be told at once.
                    let _ = self.poll_flush(cx);
                    return Poll::Ready(Err(error));
                }
                Poll::Pending => return Poll::Pending,
            }
        }
    }

    /// Ready when there is something to read, be it the end.
    pub(crate) fn poll_read_ready(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            match self.session.reader().into_first_chunk() {
                Ok(_) => return Poll::Ready(Ok(())),
                Err(error) if error.kind() != io::ErrorKind::WouldBlock => return Poll::Ready(Err(error)),
                Err(_) => {}
            }
            let received = self.poll_receive(cx);
            if self.session.wants_write() {
                // An answer to what was received, such as new keys; nobody waits for it.
                let flushed = self.poll_flush(cx);
                if let Poll::Ready(Err(error)) = flushed {
                    return Poll::Ready(Err(error));
                }
            }
            ready!(received)?;
        }
    }

    /// Reads plain bytes.
    pub(crate) fn poll_read(&mut self, cx: &mut Context<'_>, room: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_read_ready(cx))?;
        let n = self.read(room.initialize_unfilled())?;
        room.advance(n);
        Poll::Ready(Ok(()))
    }

    /// Reads plain bytes that are there.
    pub(crate) fn read(&mut self, room: &mut [u8]) -> io::Result<usize> {
        self.session.reader().read(room)
    }

    /// Writes plain bytes; some may wait for [`TlsStream::poll_flush`] then.
    pub(crate) fn poll_write(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        ready!(self.poll_flush(cx))?;
        let n = self.session.writer().write(bytes)?;
        match self.poll_flush(cx) {
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            _ => Poll::Ready(Ok(n)),
        }
    }

    /// Writes plain bytes from several places, as one record where they fit.
    pub(crate) fn poll_write_vectored(
        &mut self,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_flush(cx))?;
        let n = self.session.writer().write_vectored(slices)?;
        match self.poll_flush(cx) {
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            _ => Poll::Ready(Ok(n)),
        }
    }

    /// Hands everything that was written to the socket.
    pub(crate) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.session.wants_write() {
            match self.session.write_tls(&mut Socket { tcp: &mut self.tcp, cx: &mut *cx }) {
                Ok(0) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Poll::Pending,
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Says that nothing more will be written.
    pub(crate) fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !std::mem::replace(&mut self.closed, true) {
            self.session.send_close_notify();
        }
        ready!(self.poll_flush(cx))?;
        Pin::new(&mut self.tcp).poll_shutdown(cx)
    }

    /// Takes ciphertext from the socket into the session; how much, zero at the end.
    fn poll_receive(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        if !self.ahead.is_empty() {
            let ahead = std::mem::take(&mut self.ahead);
            return Poll::Ready(self.take_in(&ahead));
        }
        if self.ended {
            return Poll::Ready(Ok(0));
        }
        CIPHERTEXT.with_borrow_mut(|memory| {
            // Unlike `try_read`, this knows by a short read that there is no more: the system is asked once, not twice.
            let mut room = ReadBuf::new(memory);
            ready!(Pin::new(&mut self.tcp).poll_read(cx, &mut room))?;
            if room.filled().is_empty() {
                self.ended = true;
                self.session.read_tls(&mut io::empty())?;
                return Poll::Ready(Ok(0));
            }
            Poll::Ready(self.take_in(room.filled()))
        })
    }

    fn take_in(&mut self, mut bytes: &[u8]) -> io::Result<usize> {
        let n = bytes.len();
        while !bytes.is_empty() {
            if self.session.read_tls(&mut bytes)? == 0 {
                // The other side has said that nothing more will come.
                break;
            }
            let state =
                self.session.process_new_packets().map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e))?;
            if state.plaintext_bytes_to_read() >= ENOUGH {
                self.ahead.extend_from_slice(bytes);
                break;
            }
        }
        Ok(n)
    }
}

impl Drop for TlsStream {
    /// Tells the other side that this is the end, and nobody has cut it off; as far as that can be said at once.
    fn drop(&mut self) {
        if !self.closed && !self.session.is_handshaking() {
            self.session.send_close_notify();
            let mut context = Context::from_waker(Waker::noop());
            let _ = self.poll_flush(&mut context);
        }
    }
}

/// A socket as rustls writes to it.
struct Socket<'a, 'c> {
    tcp: &'a mut TcpStream,
    cx: &'a mut Context<'c>,
}

impl Write for Socket<'_, '_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        blocking(Pin::new(&mut *self.tcp).poll_write(self.cx, bytes))
    }

    fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        blocking(Pin::new(&mut *self.tcp).poll_write_vectored(self.cx, slices))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn blocking(polled: Poll<io::Result<usize>>) -> io::Result<usize> {
    match polled {
        Poll::Ready(result) => result,
        Poll::Pending => Err(io::ErrorKind::WouldBlock.into()),
    }
}
