//! Reading into borrowed blocks, and writing whole buffers.

use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll, Waker, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use super::buffers::{BLOCK, Blocks, Lent};
use super::held::Held;
use crate::tls::TlsStream;

/// A connection as the worker reads and writes it.
pub(crate) enum Stream {
    Plain(TcpStream),
    Tls(Box<TlsStream>),
}

impl Stream {
    /// The socket below.
    pub(crate) fn socket(&self) -> &TcpStream {
        match self {
            Stream::Plain(tcp) => tcp,
            Stream::Tls(tls) => tls.socket(),
        }
    }

    /// Our end of it.
    pub(crate) fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket().local_addr()
    }

    /// The protocol that ALPN has settled on.
    pub(crate) fn alpn(&self) -> Option<&[u8]> {
        match self {
            Stream::Plain(_) => None,
            Stream::Tls(tls) => tls.state().alpn_protocol(),
        }
    }

    /// Whether nothing has come that nobody has read: a server that speaks unasked has closed the connection, or means
    /// something we cannot know.
    pub(crate) fn is_quiet(&mut self) -> bool {
        match self {
            // Without a word from the kernel since the last read this asks nobody.
            Stream::Plain(tcp) => matches!(tcp.try_read(&mut [0]), Err(e) if e.kind() == io::ErrorKind::WouldBlock),
            Stream::Tls(tls) => tls.poll_read_ready(&mut Context::from_waker(Waker::noop())).is_pending(),
        }
    }
}

impl AsyncRead for Stream {
    #[inline]
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, room: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Stream::Plain(tcp) => Pin::new(tcp).poll_read(cx, room),
            Stream::Tls(tls) => tls.poll_read(cx, room),
        }
    }
}

impl AsyncWrite for Stream {
    #[inline]
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Stream::Plain(tcp) => Pin::new(tcp).poll_write(cx, bytes),
            Stream::Tls(tls) => tls.poll_write(cx, bytes),
        }
    }

    #[inline]
    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Stream::Plain(tcp) => Pin::new(tcp).poll_write_vectored(cx, slices),
            Stream::Tls(tls) => tls.poll_write_vectored(cx, slices),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    #[inline]
    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Stream::Plain(_) => Poll::Ready(Ok(())),
            Stream::Tls(tls) => tls.poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Stream::Plain(tcp) => Pin::new(tcp).poll_shutdown(cx),
            Stream::Tls(tls) => tls.poll_shutdown(cx),
        }
    }
}

/// Bytes that have been read and not been used. Empty, it holds no memory.
#[derive(Default)]
pub(crate) struct Input {
    block: Vec<u8>,
    /// Where the block is one of the few that are large.
    lent: Option<Lent>,
    start: usize,
    end: usize,
    /// Whether the last read has filled a block: then the next one is to be large.
    much: bool,
    held: Held,
}

impl Input {
    pub(crate) fn is_empty(&self) -> bool {
        self.start == self.end
    }

    pub(crate) fn len(&self) -> usize {
        self.end - self.start
    }

    pub(crate) fn data(&self) -> &[u8] {
        &self.block[self.start..self.end]
    }

    /// What has been read, if anything has.
    pub(crate) fn peek(&self) -> &[u8] {
        self.block.get(self.start..self.end).unwrap_or_default()
    }

    pub(crate) fn data_mut(&mut self) -> &mut [u8] {
        &mut self.block[self.start..self.end]
    }

    /// Takes bytes off the front; the block goes back with the last of them.
    pub(crate) fn consume(&mut self, n: usize, blocks: &Blocks) {
        self.start += n;
        if self.start >= self.end {
            self.release(blocks);
        }
    }

    /// Gives the block back, whatever is in it.
    pub(crate) fn release(&mut self, blocks: &Blocks) {
        self.start = 0;
        self.end = 0;
        if !self.block.is_empty() {
            self.held.set(0);
            blocks.give(std::mem::take(&mut self.block));
            self.lent = None;
        }
    }

    /// Reads some more; how much, zero at the end. While nothing comes, no block is held.
    /// Makes room for a message's head of up to `limit` bytes when the block is full.
    pub(crate) fn poll_fill(
        &mut self,
        cx: &mut Context<'_>,
        stream: &mut Stream,
        blocks: &Blocks,
        limit: usize,
    ) -> Poll<io::Result<usize>> {
        loop {
            // Who has nothing to read borrows nothing.
            match stream {
                Stream::Plain(tcp) => ready!(tcp.poll_read_ready(cx))?,
                Stream::Tls(tls) => ready!(tls.poll_read_ready(cx))?,
            }
            if self.block.is_empty() {
                self.borrow(blocks);
            } else if self.end == self.block.len() {
                self.make_room(limit);
            }
            let room = &mut self.block[self.end..];
            let read = match stream {
                Stream::Plain(tcp) => maille_net::try_read(tcp, room),
                Stream::Tls(tls) => tls.read(room),
            };
            if let Ok(n) = read {
                self.end += n;
                self.much = n >= BLOCK;
            }
            if self.is_empty() {
                self.release(blocks);
            }
            match read {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                read => return Poll::Ready(read),
            }
        }
    }

    fn borrow(&mut self, blocks: &Blocks) {
        match self.much.then(|| blocks.take_large()).flatten() {
            Some((block, lent)) => (self.block, self.lent) = (block, Some(lent)),
            None => self.block = blocks.take(),
        }
        self.held.set(self.block.len());
    }

    /// How much memory it has.
    pub(crate) fn held(&self) -> usize {
        self.held.get()
    }

    /// Whether nothing more can be read before some of it is used.
    pub(crate) fn is_full(&self, limit: usize) -> bool {
        self.len() >= limit.max(BLOCK)
    }

    fn make_room(&mut self, limit: usize) {
        if self.start > 0 {
            self.block.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
        } else if self.block.len() < limit {
            let size = (self.block.len() * 2).min(limit.next_multiple_of(4096));
            self.block.resize(size, 0);
            self.held.set(size);
        }
    }
}

/// Writes all that is left of a buffer after `written`, down to the socket.
pub(crate) fn poll_write(
    cx: &mut Context<'_>,
    stream: &mut Stream,
    buffer: &[u8],
    written: &mut usize,
) -> Poll<io::Result<()>> {
    while *written < buffer.len() {
        match ready!(Pin::new(&mut *stream).poll_write(cx, &buffer[*written..]))? {
            0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
            n => *written += n,
        }
    }
    Pin::new(stream).poll_flush(cx)
}

/// Writes all that is left of several buffers, one behind the other, after `written`.
pub(crate) fn poll_write_all(
    cx: &mut Context<'_>,
    stream: &mut Stream,
    buffers: [&[u8]; 3],
    written: &mut usize,
) -> Poll<io::Result<()>> {
    if let [[], alone, []] = buffers {
        return poll_write(cx, stream, alone, written);
    }
    let all: usize = buffers.iter().map(|buffer| buffer.len()).sum();
    while *written < all {
        let mut slices = buffers.map(io::IoSlice::new);
        let mut left = &mut slices[..];
        io::IoSlice::advance_slices(&mut left, *written);
        match ready!(Pin::new(&mut *stream).poll_write_vectored(cx, left))? {
            0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
            n => *written += n,
        }
    }
    Pin::new(stream).poll_flush(cx)
}

/// Writes a whole buffer.
pub(crate) async fn write_all(stream: &mut Stream, buffer: &[u8]) -> io::Result<()> {
    let mut written = 0;
    poll_fn(|cx| poll_write(cx, stream, buffer, &mut written)).await
}

/// Says that nothing more will be written.
pub(crate) fn poll_shutdown(cx: &mut Context<'_>, stream: &mut Stream) -> Poll<io::Result<()>> {
    Pin::new(stream).poll_shutdown(cx)
}
