//! Reading from a socket without waiting.

use std::io::{self, Read};

use socket2::SockRef;
use tokio::io::Interest;
use tokio::net::TcpStream;

/// Reads what is there, where the system has said that something is. A read that leaves room has taken all of it: until
/// the system says something again, nobody asks it.
#[inline]
pub fn try_read(tcp: &TcpStream, room: &mut [u8]) -> io::Result<usize> {
    let mut got = 0;
    let read = tcp.try_io(Interest::READABLE, || {
        got = (&*SockRef::from(tcp)).read(room)?;
        match got {
            0 => Ok(()),
            // The runtime takes this for the end of what there was, which it is.
            n if n < room.len() => Err(io::ErrorKind::WouldBlock.into()),
            _ => Ok(()),
        }
    });
    match read {
        Err(_) if got > 0 => Ok(got),
        read => read.map(|()| got),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[tokio::test]
    async fn what_comes_is_read_however_it_fits() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let mut peer = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (tcp, _) = listener.accept().unwrap();
        tcp.set_nonblocking(true).unwrap();
        let tcp = TcpStream::from_std(tcp).unwrap();
        let mut room = [0; 4];
        assert_eq!(try_read(&tcp, &mut room).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        // Less than there is room for, as much, and more, each after the one before has been read.
        for sent in [&b"abc"[..], b"abcd", b"abcdef", b"a"] {
            peer.write_all(sent).unwrap();
            let mut got = Vec::new();
            while got.len() < sent.len() {
                tcp.readable().await.unwrap();
                match try_read(&tcp, &mut room) {
                    Ok(n) => got.extend_from_slice(&room[..n]),
                    Err(error) => assert_eq!(error.kind(), io::ErrorKind::WouldBlock),
                }
            }
            assert_eq!(got, sent);
        }
        drop(peer);
        tcp.readable().await.unwrap();
        assert_eq!(try_read(&tcp, &mut room).unwrap(), 0, "the end");
    }
}
