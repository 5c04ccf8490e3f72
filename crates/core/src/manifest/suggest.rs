//! Did you mean …?

use super::report::quote;

/// What other systems call our fields.
const ELSEWHERE: &[(&str, &str)] = &[
    ("replicas", "desiredCount"),
    ("count", "desiredCount"),
    ("containers", "containerDefinitions"),
    ("ports", "portMappings"),
    ("env", "environment"),
    ("args", "command"),
    ("entrypoint", "entryPoint"),
    ("workdir", "workingDirectory"),
    ("healthcheck", "healthCheck"),
    ("livenessProbe", "healthCheck"),
    ("strategy", "placementStrategy"),
    ("ip", "address"),
    ("hostname", "address"),
    ("key", "identityFile"),
    ("labels", "dockerLabels"),
    ("mem", "memory"),
    ("restart", "restartPolicy"),
    ("httpHeaderName", "name"),
];

/// The candidate that was probably meant.
pub fn closest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let wanted = squash(word);
    let candidates: Vec<&str> = candidates.into_iter().collect();
    if let Some(same) = candidates.iter().find(|candidate| squash(candidate) == wanted) {
        return Some(same);
    }
    // Two words that differ by more than a third are different words.
    let allowed = (wanted.chars().count() / 3).clamp(1, 4);
    if wanted.len() > 64 {
        return None;
    }
    let distance = |candidate: &str| {
        let candidate = squash(candidate);
        // Cheap first: lengths that differ too much are not compared.
        let near = candidate.len().abs_diff(wanted.len()) <= allowed;
        near.then(|| strsim::osa_distance(&wanted, &candidate))
            .filter(|distance| *distance <= allowed && *distance < candidate.len())
    };
    candidates
        .into_iter()
        .filter_map(|candidate| Some((distance(candidate)?, candidate)))
        .min()
        .map(|(_, candidate)| candidate)
}

/// The same for a field, which people may know by another system's name.
pub fn closest_field<'a>(word: &str, fields: &[&'a str]) -> Option<&'a str> {
    closest(word, fields.iter().copied()).or_else(|| {
        let (_, ours) = ELSEWHERE.iter().find(|(theirs, _)| squash(theirs) == squash(word))?;
        fields.iter().copied().find(|field| field == ours)
    })
}

/// "did you mean …?", when something is close.
pub fn did_you_mean<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<String> {
    closest(word, candidates).map(|candidate| format!("did you mean {}?", quote(candidate)))
}

/// Lower case, without separators: `desired_count` and `DesiredCount` are `desiredCount`.
fn squash(word: &str) -> String {
    word.chars().filter(|c| !matches!(c, '_' | '-' | ' ')).flat_map(char::to_lowercase).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slips_are_seen_and_other_words_are_not() {
        let fields = ["desiredCount", "cluster", "launchType", "environment"];
        for (word, meant) in [
            ("desired_count", Some("desiredCount")),
            ("DesiredCount", Some("desiredCount")),
            ("desierdCount", Some("desiredCount")),
            ("clutser", Some("cluster")),
            ("replicas", Some("desiredCount")),
            ("env", Some("environment")),
            ("bananas", None),
            ("", None),
        ] {
            assert_eq!(closest_field(word, &fields), meant, "{word}");
        }
    }
}
