//! The transports against the real thing: Unix sockets, and SSH servers that the tests start
//! themselves on free ports of 127.0.0.1. Needs root and `/usr/sbin/sshd`, else they say so and pass.

mod conformance;
mod faults;
mod identity;
mod sockets;
mod sshd;
