//! HTTP messages, the HTTP/1 codec, path and host rules, limits; no sockets.
