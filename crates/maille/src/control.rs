//! Finding the control plane: `--control`, and the token that opens its door.

use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::Arc;

use maille_agent::door::Door;
use maille_agent::membership::Tokens;

use crate::failure::Failure;

/// Where the control plane listens when nothing else is said, as Istio's.
pub(crate) const XDS_PORT: u16 = 15010;

/// The option that names the control plane.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Address {
    /// The control plane, as HOST:PORT
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:15010", env = "MAILLE_CONTROL")]
    control: String,
}

impl Address {
    /// The address to connect to.
    pub(crate) fn resolve(&self) -> Result<SocketAddr, Failure> {
        let text = &self.control;
        let bad = |reason: String| Failure::usage(format!("--control {text}: expected HOST:PORT ({reason})"));
        let mut found = text.to_socket_addrs().map_err(|error| bad(error.to_string()))?;
        let address = found.next().ok_or_else(|| bad("the name has no address".to_owned()))?;
        if address.port() == 0 { Err(bad("nobody listens on port 0".to_owned())) } else { Ok(address) }
    }
}

/// The way to the certificates of the control plane on this machine, found anew each time.
pub(crate) fn door(control: SocketAddr) -> Door {
    let place = Arc::new(move || maille_control::token::find_tls(control.port()).map_err(|error| error.to_string()));
    Door { place, tokens: Some(tokens(control)) }
}

/// Reads the token that the control plane on this machine has left for us, anew each time.
pub(crate) fn tokens(control: SocketAddr) -> Tokens {
    Arc::new(move || maille_control::token::find(control.port()).map_err(|error| error.to_string()))
}
