//! Rules as nftables takes them.

use roadstead_core::model::network::HostNetwork;

/// The whole.
pub fn ruleset(_wanted: &HostNetwork) -> String {
    "table inet roadstead\ndelete table inet roadstead\ntable inet roadstead {\n}\n".to_owned()
}

/// On bridges.
pub fn bridge_ruleset(_wanted: &HostNetwork) -> String {
    "table bridge roadstead\ndelete table bridge roadstead\ntable bridge roadstead {\n}\n".to_owned()
}

/// What differs.
pub fn update(_before: &HostNetwork, _after: &HostNetwork) -> Option<String> {
    None
}
