//! Quantities with their units in the type, read leniently (`512`, `"512"`, `512Mi`, `0.5`, `30s`) and written canonically.

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize};

/// CPU units; 1024 are one vCPU (ECS). Also written as vCPUs with a decimal point: `0.5`, or `.5 vcpu`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct CpuUnits(pub u32);

/// Mebibytes. Also written with a unit: `512Mi`, `1Gi`, `1 GB`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct Mebibytes(pub u32);

/// Whole seconds. Also written with a unit: `30s`, `5m`, `1h`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct Seconds(pub u32);

impl Seconds {
    /// In milliseconds.
    pub fn as_ms(self) -> u64 {
        u64::from(self.0) * 1000
    }
}

/// Why a text is not a quantity: says what was expected.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not {expected}")]
pub struct QuantityError {
    /// What was written.
    pub text: String,
    /// What would have been right, with examples.
    pub expected: &'static str,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum NumberOrText {
    Whole(u32),
    Fraction(f64),
    Text(String),
}

macro_rules! quantity {
    ($name:ident, $parse:ident, $expected:literal, $pattern:literal) => {
        impl std::str::FromStr for $name {
            type Err = QuantityError;

            fn from_str(text: &str) -> Result<Self, QuantityError> {
                $parse(text.trim()).map(Self).ok_or_else(|| QuantityError {
                    text: text.to_owned(),
                    expected: $expected,
                })
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = match NumberOrText::deserialize(deserializer) {
                    Ok(NumberOrText::Whole(number)) => return Ok(Self(number)),
                    Ok(NumberOrText::Fraction(number)) => format!("{number:?}"),
                    Ok(NumberOrText::Text(text)) => text,
                    Err(_) => return Err(serde::de::Error::custom(concat!("expected ", $expected))),
                };
                text.parse().map_err(serde::de::Error::custom)
            }
        }

        impl JsonSchema for $name {
            fn schema_name() -> std::borrow::Cow<'static, str> {
                stringify!($name).into()
            }

            fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
                schemars::json_schema!({
                    "description": $expected,
                    "anyOf": [{ "type": "number", "minimum": 0 }, { "type": "string", "pattern": $pattern }]
                })
            }
        }
    };
}

/// Docker takes no CPU limit below a hundredth of a CPU; in units.
pub const MIN_CPU_LIMIT: u32 = 11;

quantity!(
    CpuUnits,
    parse_cpu,
    "CPU units (1024 = one vCPU) such as 256, or vCPUs such as 0.25 or \"1 vcpu\"",
    r"^\s*[0-9]*\.?[0-9]+\s*([vV][cC][pP][uU])?\s*$"
);
quantity!(
    Mebibytes,
    parse_mebibytes,
    "mebibytes such as 512, or a size such as 512Mi or 1Gi",
    r"^\s*[0-9]*\.?[0-9]+\s*([MmGg][Ii]?[Bb]?)?\s*$"
);
quantity!(
    Seconds,
    parse_seconds,
    "seconds such as 30, or a duration such as 30s, 5m or 1h",
    r"^\s*[0-9]+\s*(s|m|h|d)?\s*$"
);

fn scaled(number: &str, factor: f64) -> Option<u32> {
    let value = number.trim().parse::<f64>().ok()? * factor;
    let rounded = value.round();
    (rounded.is_finite() && (0.0..=f64::from(u32::MAX)).contains(&rounded) && (value - rounded).abs() < 1e-6)
        .then_some(rounded as u32)
}

fn parse_cpu(text: &str) -> Option<u32> {
    let lower = text.to_ascii_lowercase();
    match lower.strip_suffix("vcpu") {
        Some(number) => scaled(number, 1024.0),
        None if lower.contains('.') => scaled(&lower, 1024.0),
        None => lower.parse().ok(),
    }
}

fn parse_mebibytes(text: &str) -> Option<u32> {
    let lower = text.to_ascii_lowercase();
    let digits = lower.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    match lower.get(digits.len()..)? {
        "" | "m" | "mi" | "mib" | "mb" => scaled(digits, 1.0),
        "g" | "gi" | "gib" | "gb" => scaled(digits, 1024.0),
        _ => None,
    }
}

fn parse_seconds(text: &str) -> Option<u32> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let number: u32 = digits.trim().parse().ok()?;
    match text.get(digits.len()..)? {
        "" | "s" => Some(number),
        "m" => number.checked_mul(60),
        "h" => number.checked_mul(3600),
        "d" => number.checked_mul(86_400),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_read_what_people_write() {
        for (text, units) in [
            ("256", Some(256)),
            ("0.5", Some(512)),
            ("1 vCPU", Some(1024)),
            (".25 vcpu", Some(256)),
            ("-1", None),
            ("a", None),
        ] {
            assert_eq!(text.parse::<CpuUnits>().ok(), units.map(CpuUnits), "{text}");
        }
        for (text, mib) in [
            ("512", Some(512)),
            ("512Mi", Some(512)),
            ("0.5GB", Some(512)),
            ("1 Gi", Some(1024)),
            ("1T", None),
            ("9999999G", None),
        ] {
            assert_eq!(text.parse::<Mebibytes>().ok(), mib.map(Mebibytes), "{text}");
        }
        for (text, seconds) in
            [("30", Some(30)), ("30s", Some(30)), ("5m", Some(300)), ("1h", Some(3600)), ("1w", None), ("", None)]
        {
            assert_eq!(text.parse::<Seconds>().ok(), seconds.map(Seconds), "{text}");
        }
        assert_eq!(serde_json::from_str::<CpuUnits>("0.5").unwrap(), CpuUnits(512));
        assert_eq!(serde_json::from_str::<Mebibytes>("\"512\"").unwrap(), Mebibytes(512));
    }
}
