//! The load balancers' configuration and commands against a real HAProxy.

mod acme;
mod changes;
mod faults;
mod lab;
mod latency;
mod load;
mod routes;
mod text;
mod tls;
