//! The wire: Envoy protobuf types, ADS server and client, ACK/NACK, warming order.
