//! How long answers take: HAProxy counts them by server and length in a table, since it tells averages only.

use std::fmt::Write;

use roadstead_core::model::latency::{BOUNDS_MS, BUCKETS, Latency};

/// The table's name.
pub const TABLE: &str = "took";

/// The table: a line for each server of each backend that answered in the last day.
pub fn table(config: &mut String) {
    let _ =
        writeln!(config, "backend {TABLE}\n  stick-table type string len 160 size 100k expire 1d store gpc({BUCKETS})");
}

/// A request begins.
pub const BEGIN: &str = "  http-request set-var(txn.begun) date(0,ms)\n";

/// A backend's answers are counted.
pub fn count(config: &mut String) {
    let _ = writeln!(
        config,
        "  http-response set-var(txn.took) date(0,ms),sub(txn.begun)\n  \
           http-response set-var(txn.by) srv_name\n  \
           http-response track-sc2 be_name,concat(/,txn.by) table {TABLE}"
    );
    let mut from = 0;
    for (bucket, to) in BOUNDS_MS.into_iter().enumerate() {
        let _ = writeln!(config, "  http-response sc-inc-gpc({bucket},2) if {{ var(txn.took) -m int {from}:{to} }}");
        from = to + 1;
    }
    let _ =
        writeln!(config, "  http-response sc-inc-gpc({},2) if {{ var(txn.took) -m int ge {from} }}", BOUNDS_MS.len());
}

/// A line of the table: backend, server and what was counted.
pub fn of_line(line: &str) -> Option<((String, String), Latency)> {
    let mut words = line.split_ascii_whitespace();
    let key = words.find_map(|word| word.strip_prefix("key="))?;
    let (backend, server) = key.rsplit_once('/')?;
    let mut counts = [0; BUCKETS];
    for word in words {
        let Some((number, count)) = word.strip_prefix("gpc").and_then(|it| it.split_once('=')) else { continue };
        *counts.get_mut(number.parse::<usize>().ok()?)? = count.parse().ok()?;
    }
    Some(((backend.to_owned(), server.to_owned()), Latency::new(counts)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_the_table_is_read() {
        let at = ("g.a".to_owned(), "t1".to_owned());
        let mut counts = [0; BUCKETS];
        (counts[1], counts[13]) = (2, 7);
        assert_eq!(of_line("0x55d: key=g.a/t1 use=0 exp=9 gpc0=0 gpc1=2 gpc13=7"), Some((at, Latency::new(counts))));
        for wrong in ["", "# table: took", "0x1: key=t1 gpc0=1", "0x1: key=g/t gpc14=1", "0x1: key=g/t gpc1=x"] {
            assert_eq!(of_line(wrong), None, "{wrong}");
        }
    }
}
