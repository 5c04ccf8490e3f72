//! The task network on a host.

pub mod nft;
