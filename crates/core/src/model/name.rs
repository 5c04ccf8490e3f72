//! Names: one type per kind of thing, so that a host is never passed where a service is meant.
//!
//! A name of up to 23 bytes lies in the value itself and a longer one is shared: a clone never allocates.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use smol_str::SmolStr;

macro_rules! name_type {
    ($($(#[$doc:meta])* $name:ident)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
        #[serde(transparent)]
        pub struct $name(SmolStr);

        impl $name {
            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }

        impl From<&str> for $name {
            fn from(text: &str) -> Self {
                Self(SmolStr::new(text))
            }
        }

        impl From<String> for $name {
            fn from(text: String) -> Self {
                Self(text.into())
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        impl std::borrow::Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }
    )*};
}

name_type! {
    /// A `Cluster` manifest's `metadata.name`.
    ClusterName
    /// A `Host` manifest's `metadata.name`.
    HostName
    /// A `Service` manifest's `metadata.name`.
    ServiceName
    /// A `ScheduledTask` manifest's `metadata.name`.
    ScheduleName
    /// A `Subnet` manifest's `metadata.name`.
    SubnetName
    /// A `SecurityGroup` manifest's `metadata.name`.
    SecurityGroupName
    /// A `TargetGroup` manifest's `metadata.name`.
    TargetGroupName
    /// A `LoadBalancer` manifest's `metadata.name`.
    LoadBalancerName
    /// A certificate: `file:PATH`, or who makes it for which names.
    CertificateId
    /// A task definition family.
    Family
    /// The name of a container inside its task definition.
    ContainerName
    /// A task's id: 16 lower-case hex digits, unique for ever.
    TaskId
    /// The id that a Docker Engine gave to a container.
    RuntimeId
}

/// No service can be called so: a name has no colon.
const FAMILY_GROUP: &str = "family:";

impl ServiceName {
    /// What stands in a service's place for standalone tasks: their group `family:NAME` (ECS).
    pub fn of_family(family: &Family) -> Self {
        Self::from(format!("{FAMILY_GROUP}{family}"))
    }

    /// The family, if this is a group of standalone tasks.
    pub fn family(&self) -> Option<&str> {
        self.as_str().strip_prefix(FAMILY_GROUP)
    }

    /// ECS's `group`: `service:NAME` or `family:NAME`.
    pub fn group(&self) -> String {
        match self.family() {
            Some(_) => self.to_string(),
            None => format!("service:{self}"),
        }
    }
}

/// One immutable revision of a task definition, written `family:number` as ECS does.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct RevisionId {
    /// The family.
    pub family: Family,
    /// 1, 2, 3 …
    pub number: u32,
}

impl fmt::Display for RevisionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.family, self.number)
    }
}

impl From<RevisionId> for String {
    fn from(id: RevisionId) -> Self {
        id.to_string()
    }
}

impl TryFrom<String> for RevisionId {
    type Error = String;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl std::str::FromStr for RevisionId {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (family, number) = text.rsplit_once(':').ok_or_else(|| format!("`{text}` is not FAMILY:NUMBER"))?;
        let number = number.parse().map_err(|_| format!("`{number}` in `{text}` is not a revision number"))?;
        Ok(Self { family: family.into(), number })
    }
}
