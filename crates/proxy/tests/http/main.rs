//! What the proxy does on the wire: raw bytes in, raw bytes out, against servers that keep to a script.

mod bodies;
mod connections;
mod support;
mod timers;
