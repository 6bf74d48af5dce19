//! Connecting to whichever address of a host answers first: each gets a little while before the next one is tried as well.

use std::future::{Future, poll_fn};
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

use tokio::net::{TcpSocket, TcpStream};
use tokio::time::{Sleep, sleep};

/// How long one address is tried alone.
const HEAD_START: Duration = Duration::from_millis(300);

type Attempt = Pin<Box<dyn Future<Output = io::Result<TcpStream>>>>;

/// A connection to the first of the addresses that takes one; the last one's error if none does.
pub(super) async fn connect(
    first: SocketAddr,
    others: &[SocketAddr],
    socket: impl Fn(SocketAddr) -> io::Result<TcpSocket>,
) -> io::Result<TcpStream> {
    let attempt = |address: SocketAddr| -> io::Result<Attempt> {
        let socket = socket(address)?;
        Ok(Box::pin(socket.connect(address)))
    };
    let mut left = others.iter();
    let mut attempts: Vec<Attempt> = vec![attempt(first)?];
    let mut next: Pin<Box<Sleep>> = Box::pin(sleep(HEAD_START));
    let mut last = io::Error::from(io::ErrorKind::AddrNotAvailable);
    poll_fn(|cx| {
        loop {
            let mut done = None;
            attempts.retain_mut(|attempt| match attempt.as_mut().poll(cx) {
                Poll::Ready(Ok(stream)) => {
                    done.get_or_insert(stream);
                    false
                }
                Poll::Ready(Err(error)) => {
                    last = error;
                    false
                }
                Poll::Pending => true,
            });
            if let Some(stream) = done {
                return Poll::Ready(Ok(stream));
            }
            if !attempts.is_empty() && next.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            match left.next() {
                Some(address) => match attempt(*address) {
                    Ok(attempt) => attempts.push(attempt),
                    Err(error) => last = error,
                },
                None if attempts.is_empty() => {
                    return Poll::Ready(Err(std::mem::replace(&mut last, io::ErrorKind::Other.into())));
                }
                None => return Poll::Pending,
            }
            next = Box::pin(sleep(HEAD_START));
        }
    })
    .await
}

#[cfg(test)]
mod tests;
