//! The way to the control plane: on this machine in plain text, shown the owner's token; on another over TLS, shown our certificate, or
//! a token while there is none.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use maille_identity::Workload;
use maille_xds::client::{Dial, Stream};
use tokio::net::TcpStream;
use tokio::sync::watch;

use crate::door::Door;
use crate::membership::Tokens;

/// Our certificate, as it is renewed.
pub type Own = watch::Receiver<Option<Arc<Workload>>>;

/// The way to the control plane.
#[derive(Clone)]
pub struct Way {
    /// Where it listens for us.
    pub control: SocketAddr,
    /// What opens it to whoever has no certificate.
    pub tokens: Tokens,
    /// How certificates are asked for.
    pub door: Door,
    /// Whether it is on another machine: then everything goes over TLS.
    pub remote: bool,
}

impl Way {
    /// A connection for HTTP/1.
    ///
    /// # Errors
    /// When nobody answers, or somebody else does.
    pub(crate) async fn connect(&self, own: &Own) -> io::Result<Box<dyn Stream>> {
        if !self.remote {
            return Ok(Box::new(TcpStream::connect(self.control).await?));
        }
        let own = own.borrow().clone();
        let stream = self.door.stream(own.as_deref(), &[b"http/1.1"]).await.map_err(io::Error::other)?;
        Ok(Box::new(stream))
    }

    /// What to check when nobody is there.
    pub(crate) fn advice(&self) -> &'static str {
        match self.remote {
            true => "is `maille up --tls-address` running there, and --token-file readable?",
            false => "is `maille up` running, as the same user?",
        }
    }

    /// How a proxy of ours connects, where that is not in plain text.
    pub fn dial(&self, own: Own) -> Option<Dial> {
        let door = self.door.clone();
        self.remote.then(|| {
            let dial: Dial = Arc::new(move || {
                let (door, own) = (door.clone(), own.borrow().clone());
                Box::pin(async move {
                    let stream = door.stream(own.as_deref(), &[b"h2"]).await.map_err(io::Error::other)?;
                    Ok(Box::new(stream) as Box<dyn Stream>)
                })
            });
            dial
        })
    }
}
