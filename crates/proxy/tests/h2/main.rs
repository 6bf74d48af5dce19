//! HTTP/2 on either side: requests and streams, gRPC, tunnels; what a peer may not do, frame by frame; attacks.

mod attacks;
mod bodies;
mod envoy;
mod frames;
mod grpc;
mod peers;
mod raw;
#[path = "../http/support.rs"]
#[allow(dead_code, reason = "HTTP/1's tests need more of it")]
mod script;
mod servers;
mod tunnels;
