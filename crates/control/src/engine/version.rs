//! Docker API versions. A version is agreed with each engine; bollard itself sends unversioned paths.

use std::fmt;
use std::str::FromStr;

use super::EngineError;

/// `1.41`
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct ApiVersion {
    major: u32,
    minor: u32,
}

/// Docker Engine 20.10, the oldest we serve.
const OLDEST: ApiVersion = ApiVersion { major: 1, minor: 41 };

/// Docker 28, which lets nobody reach containers from outside by their own addresses unless their network says so.
pub(super) const ROUTED_WITHOUT_PERMISSION_UNTIL: ApiVersion = ApiVersion { major: 1, minor: 48 };

/// The newest that bollard's types describe.
const NEWEST: ApiVersion = ApiVersion {
    major: bollard::API_DEFAULT_VERSION.major_version as u32,
    minor: bollard::API_DEFAULT_VERSION.minor_version as u32,
};

impl ApiVersion {
    /// The newest version that both sides know, from what `/version` says.
    pub(super) fn negotiate(newest: &str, oldest: Option<&str>) -> Result<Self, EngineError> {
        let unsupported = |engine: String| EngineError::UnsupportedVersion {
            engine,
            need: format!("API {OLDEST} (Docker 20.10) to {NEWEST}"),
        };
        let theirs: Self = newest.parse().map_err(|()| EngineError::Malformed {
            what: "/version".into(),
            reason: "no API version that can be read".into(),
        })?;
        // An engine that names no oldest version, or garbage, tells us with a 400 soon enough.
        let their_oldest: Option<Self> = oldest.and_then(|text| text.parse().ok());
        if theirs < OLDEST {
            return Err(unsupported(format!("API {theirs}")));
        }
        match their_oldest {
            Some(oldest) if oldest > NEWEST => Err(unsupported(format!("API {oldest} or later"))),
            Some(_) | None => Ok(theirs.min(NEWEST)),
        }
    }
}

impl fmt::Display for ApiVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

impl FromStr for ApiVersion {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (major, minor) = text.split_once('.').ok_or(())?;
        Ok(Self { major: major.parse().map_err(|_| ())?, minor: minor.parse().map_err(|_| ())? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_common_version_is_taken() {
        let negotiate = |newest, oldest| ApiVersion::negotiate(newest, oldest).map(|v| v.to_string());
        for (newest, oldest, agreed) in [
            ("1.41", Some("1.12"), "1.41"),
            ("1.44", None, "1.44"),
            ("1.99", Some("1.44"), "1.53"),
            ("2.0", Some("1.44"), "1.53"),
            ("1.45", Some("nonsense"), "1.45"),
        ] {
            assert_eq!(negotiate(newest, oldest).ok().as_deref(), Some(agreed), "{newest} {oldest:?}");
        }
        for (newest, oldest) in [("1.40", None), ("1.9", None), ("1.99", Some("1.54")), ("2.5", Some("2.0"))] {
            let error = negotiate(newest, oldest);
            assert!(matches!(error, Err(EngineError::UnsupportedVersion { .. })), "{newest}: {error:?}");
        }
        for newest in ["", "1", "1.x", "1.41.1", "-1.41"] {
            let error = negotiate(newest, None);
            assert!(matches!(error, Err(EngineError::Malformed { .. })), "{newest}: {error:?}");
        }
    }
}
