//! When a schedule fires: `rate(…)`, AWS's `cron(…)` of six fields, and plain cron of five.
//!
//! Rules: "Schedule types", EventBridge Scheduler user guide; crontab(5). A time that daylight saving skips fires when the clock
//! goes on; one that it repeats fires the first time only, unless the hours are `*` or stepped: those follow real time.

use std::sync::LazyLock;

use croner::{Cron, parser::CronParser};
use jiff::{
    Timestamp as Moment,
    tz::{TimeZone, TimeZoneDatabase},
};

use super::time::Timestamp;

/// What a schedule may look like.
pub const FORMS: &str = "cron(0 3 * * ? *), 0 3 * * *, or rate(15 minutes)";
/// Nothing fires more often.
const SHORTEST_RATE_S: u64 = 10;
const LONGEST_RATE_S: u64 = 366 * 86_400;
/// How far back the newest of many missed times is looked for, first here, then there: 1, 32 and 400 days.
const WINDOWS_MS: [u64; 3] = [86_400_000, 32 * 86_400_000, 400 * 86_400_000];

/// Built in: the answer must not depend on what a machine has installed.
static ZONES: LazyLock<TimeZoneDatabase> = LazyLock::new(TimeZoneDatabase::bundled);

/// When a schedule fires.
#[derive(Clone, Debug)]
pub struct Timing(Kind);

#[derive(Clone, Debug)]
enum Kind {
    Rate { every_ms: u64 },
    Cron { cron: Box<Cron>, zone: TimeZone },
}

/// What is wrong with a schedule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadSchedule {
    /// Where in the text the wrong word begins, in bytes.
    pub offset: usize,
    /// How long it is, in characters.
    pub length: usize,
    /// What is wrong.
    pub message: String,
    /// What would be right.
    pub help: String,
}

/// The fields of a cron expression, and what may stand there.
type Fields = &'static [(&'static str, &'static str)];

const PLAIN: Fields = &[
    ("minute", "0-59, and `,` `-` `*` `/`"),
    ("hour", "0-23, and `,` `-` `*` `/`"),
    ("day of the month", "1-31, and `,` `-` `*` `/` `L` `W`"),
    ("month", "1-12 or JAN-DEC, and `,` `-` `*` `/`"),
    ("day of the week", "0-7 (0 and 7 are Sunday) or SUN-SAT, and `,` `-` `*` `/` `L` `#`"),
];

const AWS: Fields = &[
    ("minute", "0-59, and `,` `-` `*` `/`"),
    ("hour", "0-23, and `,` `-` `*` `/`"),
    ("day of the month", "1-31, and `,` `-` `*` `/` `?` `L` `W`"),
    ("month", "1-12 or JAN-DEC, and `,` `-` `*` `/`"),
    ("day of the week", "1-7 (1 is Sunday) or SUN-SAT, and `,` `-` `*` `/` `?` `L` `#`"),
    ("year", "1970-2199, and `,` `-` `*` `/`"),
];

/// Whether a time zone is known.
pub fn is_zone(name: &str) -> bool {
    ZONES.get(name).is_ok()
}

/// The names of all time zones.
pub fn zones() -> Vec<String> {
    ZONES.available().map(|name| name.to_string()).collect()
}

impl Timing {
    /// Reads a schedule; a zone that is not known counts as UTC (see [`is_zone`]).
    ///
    /// # Errors
    /// [`BadSchedule`], at the word.
    pub fn new(schedule: &str, zone: &str) -> Result<Self, BadSchedule> {
        let whole = |message: &str| BadSchedule {
            offset: 0,
            length: schedule.chars().count().max(1),
            message: message.to_owned(),
            help: format!("write it like {FORMS}"),
        };
        let text = schedule.trim();
        let (fields, inside) = match text.strip_suffix(')').map(|text| text.split_once('(').unwrap_or((text, ""))) {
            Some(("rate", inside)) => return rate(schedule, inside),
            Some(("cron", inside)) => (AWS, inside),
            Some(_) => return Err(whole("this is neither `cron(…)` nor `rate(…)`")),
            None if text.contains('(') => return Err(whole("the bracket is not closed")),
            None => (PLAIN, text),
        };
        let cron = cron(schedule, inside, fields)?;
        let zone = ZONES.get(zone).unwrap_or(TimeZone::UTC);
        let timing = Self(Kind::Cron { cron: Box::new(cron), zone });
        match timing.next_after(Timestamp(0)) {
            Some(_) => Ok(timing),
            None => Err(whole("there is no such time")),
        }
    }

    /// The first time later than `after`: of a rate one period after it.
    pub fn next_after(&self, after: Timestamp) -> Option<Timestamp> {
        match &self.0 {
            Kind::Rate { every_ms } => Some(after.plus_ms(*every_ms)),
            Kind::Cron { cron, zone } => {
                let after = Moment::from_millisecond(i64::try_from(after.0).ok()?).ok()?.to_zoned(zone.clone());
                let next = cron.find_next_occurrence(&after, false).ok()?;
                u64::try_from(next.timestamp().as_millisecond()).ok().map(Timestamp)
            }
        }
    }

    /// The last time that is not later than `now`, given that `due` is one.
    pub fn last_until(&self, due: Timestamp, now: Timestamp) -> Timestamp {
        match &self.0 {
            Kind::Rate { every_ms } => due.plus_ms(now.since_ms(due) / every_ms * every_ms),
            Kind::Cron { .. } => {
                let starts = WINDOWS_MS.iter().map(|window| Timestamp(now.0.saturating_sub(*window)).max(due));
                let last_from = |start: Timestamp| {
                    let next = |at: &Timestamp| self.next_after(*at).filter(|next| *next <= now);
                    std::iter::successors(next(&start), next).last()
                };
                starts.chain([due]).find_map(last_from).unwrap_or(due)
            }
        }
    }
}

fn rate(schedule: &str, inside: &str) -> Result<Timing, BadSchedule> {
    let bad = |word: &str, message: String| {
        let help = "write it like rate(1 hour), with seconds, minutes, hours or days".to_owned();
        at_word(schedule, word, message, help)
    };
    let mut words = inside.split_whitespace();
    let (Some(number), Some(unit), None) = (words.next(), words.next(), words.next()) else {
        return Err(bad(inside, "a rate is a number and a unit".to_owned()));
    };
    let Ok(count) = number.parse::<u64>() else {
        return Err(bad(number, format!("`{number}` is not a whole number")));
    };
    let unit_s = match unit.trim_end_matches('s') {
        "second" => 1,
        "minute" => 60,
        "hour" => 3_600,
        "day" => 86_400,
        _ => return Err(bad(unit, format!("`{unit}` is no unit"))),
    };
    let every_s = count.saturating_mul(unit_s);
    if !(SHORTEST_RATE_S..=LONGEST_RATE_S).contains(&every_s) {
        return Err(bad(number, format!("a rate is from {SHORTEST_RATE_S} seconds to 366 days")));
    }
    Ok(Timing(Kind::Rate { every_ms: every_s * 1_000 }))
}

fn cron(schedule: &str, inside: &str, fields: Fields) -> Result<Cron, BadSchedule> {
    let names = || fields.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ");
    let given: Vec<&str> = inside.split_whitespace().collect();
    if given.len() != fields.len() {
        let message = format!("{} fields are written, and {} are needed", given.len(), fields.len());
        return Err(at_word(schedule, inside, message, format!("they are: {}", names())));
    }
    let is_aws = fields.len() == AWS.len();
    for (index, (word, (name, allowed))) in given.iter().zip(fields).enumerate() {
        let alone = (0..fields.len()).map(|other| if other == index { *word } else { "*" });
        if !is_plausible(word, is_aws, index) || parse(alone, is_aws).is_err() {
            let message = format!("`{word}` is no {name}");
            return Err(at_nth_word(schedule, inside, index, message, format!("{name}: {allowed}")));
        }
    }
    if let (true, [_, _, day, _, weekday, _]) = (is_aws, &given[..]) {
        let help = "write `?` for the one that does not matter".to_owned();
        let message = match (*day == "?", *weekday == "?") {
            (true, true) => Some("both the day of the month and the day of the week are `?`"),
            (false, false) => Some("either the day of the month or the day of the week is `?`"),
            (true, false) | (false, true) => None,
        };
        if let Some(message) = message {
            return Err(at_nth_word(schedule, inside, 4, message.to_owned(), help));
        }
    }
    parse(given.iter().copied(), is_aws).map_err(|message| at_word(schedule, inside, message, names()))
}

/// What the library would let through although it means nothing.
fn is_plausible(word: &str, is_aws: bool, index: usize) -> bool {
    let numbers = || word.split(|c: char| !c.is_ascii_digit()).filter(|number| !number.is_empty());
    let short =
        word.len() <= 100 && word.is_ascii() && numbers().all(|number| number.len() <= 4) && !word.contains('@');
    let may_ask = is_aws && (index == 2 || index == 4) && word == "?";
    let weekday = !(is_aws && index == 4) || word.split(',').all(|part| !part.starts_with('0'));
    let years = word.split('/').next().unwrap_or_default().split(|c: char| !c.is_ascii_digit());
    let year = index != 5
        || years
            .filter(|year| !year.is_empty())
            .all(|year| year.parse().is_ok_and(|year: u32| (1970..=2199).contains(&year)));
    short && (may_ask || !word.contains('?')) && weekday && year
}

fn parse<'w>(words: impl Iterator<Item = &'w str>, is_aws: bool) -> Result<Cron, String> {
    let mut words: Vec<&str> = words.collect();
    // The last day of AWS's week.
    if is_aws && words.get(4) == Some(&"L") {
        words[4] = "7";
    }
    // AWS's `0/15` begins at 0.
    let parser = CronParser::builder().alternative_weekdays(is_aws).sloppy_ranges(is_aws).build();
    parser.parse(&format!("0 {}", words.join(" "))).map_err(|error| error.to_string())
}

fn at_word(schedule: &str, word: &str, message: String, help: String) -> BadSchedule {
    BadSchedule { offset: schedule.find(word).unwrap_or(0), length: word.chars().count().max(1), message, help }
}

fn at_nth_word(schedule: &str, inside: &str, nth: usize, message: String, help: String) -> BadSchedule {
    let begin = schedule.find(inside).unwrap_or(0);
    let mut rest = inside;
    for step in 0..=nth {
        rest = rest.trim_start();
        if step < nth {
            rest = rest.trim_start_matches(|c: char| !c.is_whitespace());
        }
    }
    let offset = begin + inside.len() - rest.len();
    let length = rest.split_whitespace().next().map_or(1, |word| word.chars().count());
    BadSchedule { offset, length, message, help }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        Timestamp(u64::try_from(text.parse::<Moment>().unwrap().as_millisecond()).unwrap())
    }

    fn next(schedule: &str, zone: &str, after: &str) -> String {
        let next = Timing::new(schedule, zone).unwrap().next_after(at(after));
        next.map_or_else(|| "never".to_owned(), |next| next.to_string())
    }

    #[test]
    fn schedules_mean_what_they_mean_at_aws_and_in_crontab() {
        for (schedule, after, expected) in [
            ("0 3 * * *", "2026-01-31T03:00:00Z", "2026-02-01T03:00:00Z"),
            ("*/15 * * * *", "2026-01-31T03:01:00Z", "2026-01-31T03:15:00Z"),
            // Sunday is 0 in crontab, and 1 at AWS.
            ("0 0 * * 1", "2026-01-31T00:00:00Z", "2026-02-02T00:00:00Z"),
            ("cron(0 0 ? * 2 *)", "2026-01-31T00:00:00Z", "2026-02-02T00:00:00Z"),
            ("cron(0 0 ? * MON-FRI *)", "2026-01-31T00:00:00Z", "2026-02-02T00:00:00Z"),
            ("cron(0/20 * * * ? *)", "2026-01-31T03:01:00Z", "2026-01-31T03:20:00Z"),
            ("cron(0 12 L * ? *)", "2026-02-01T00:00:00Z", "2026-02-28T12:00:00Z"),
            // The 31st is a Saturday: the nearest weekday of the month is the 30th.
            ("cron(0 12 31W * ? *)", "2026-01-01T00:00:00Z", "2026-01-30T12:00:00Z"),
            ("cron(0 12 ? * 6L *)", "2026-01-01T00:00:00Z", "2026-01-30T12:00:00Z"),
            ("cron(0 12 ? * 3#2 *)", "2026-01-01T00:00:00Z", "2026-01-13T12:00:00Z"),
            ("cron(0 12 ? * L *)", "2026-01-01T00:00:00Z", "2026-01-03T12:00:00Z"),
            ("cron(0 12 1 1 ? 2030)", "2026-01-01T00:00:00Z", "2030-01-01T12:00:00Z"),
            ("cron(0 12 1 1 ? 2020)", "2026-01-01T00:00:00Z", "never"),
            ("rate(5 minutes)", "2026-01-01T00:00:00Z", "2026-01-01T00:05:00Z"),
            ("rate(1 hour)", "2026-01-01T00:00:00Z", "2026-01-01T01:00:00Z"),
        ] {
            let expected = if expected == "never" { expected.to_owned() } else { at(expected).to_string() };
            assert_eq!(next(schedule, "UTC", after), expected, "{schedule}");
        }
    }

    #[test]
    fn daylight_saving_skips_nothing_and_repeats_nothing_that_has_an_hour() {
        // 02:30 does not exist on 29 March 2026 in Berlin, and exists twice on 25 October.
        let timing = Timing::new("30 2 * * *", "Europe/Berlin").unwrap();
        let mut times = Vec::new();
        let mut now = at("2026-03-28T00:00:00Z");
        for _ in 0..3 {
            now = timing.next_after(now).unwrap();
            times.push(now.to_string());
        }
        assert_eq!(times.len(), 3);
        let expected = ["2026-03-28T01:30:00Z", "2026-03-29T01:00:00Z", "2026-03-30T00:30:00Z"];
        assert_eq!(times, expected.map(|text| at(text).to_string()));
        let first = timing.next_after(at("2026-10-24T12:00:00Z")).unwrap();
        assert_eq!(first, at("2026-10-25T00:30:00Z"));
        assert_eq!(timing.next_after(first).unwrap(), at("2026-10-26T01:30:00Z"));
        // Every half hour is every half hour, whatever the clock on the wall says.
        let timing = Timing::new("*/30 * * * *", "Europe/Berlin").unwrap();
        let mut now = at("2026-10-25T00:00:00Z");
        for _ in 0..6 {
            let next = timing.next_after(now).unwrap();
            assert_eq!(next.since_ms(now), 30 * 60_000, "{now}");
            now = next;
        }
    }

    #[test]
    fn of_many_missed_times_the_last_is_found() {
        for (schedule, due, now, last) in [
            ("* * * * *", "2025-01-01T00:00:00Z", "2026-01-01T00:00:30Z", "2026-01-01T00:00:00Z"),
            ("0 0 1 * *", "2025-01-01T00:00:00Z", "2026-01-20T00:00:30Z", "2026-01-01T00:00:00Z"),
            ("0 0 1 1 *", "2020-01-01T00:00:00Z", "2026-12-20T00:00:30Z", "2026-01-01T00:00:00Z"),
            ("cron(0 0 29 2 ? *)", "2016-02-29T00:00:00Z", "2026-12-20T00:00:30Z", "2024-02-29T00:00:00Z"),
            ("0 0 * * *", "2026-01-01T00:00:00Z", "2026-01-01T00:00:00Z", "2026-01-01T00:00:00Z"),
            ("rate(10 seconds)", "2026-01-01T00:00:00Z", "2026-01-01T00:00:39Z", "2026-01-01T00:00:30Z"),
        ] {
            let timing = Timing::new(schedule, "UTC").unwrap();
            assert_eq!(timing.last_until(at(due), at(now)), at(last), "{schedule}");
        }
    }

    #[test]
    fn a_bad_schedule_is_told_at_the_word() {
        for (schedule, word, words) in [
            ("cron(0 25 * * ? *)", "25", "is no hour"),
            ("cron(60 1 * * ? *)", "60", "is no minute"),
            ("cron(0 1 32 * ? *)", "32", "is no day of the month"),
            ("cron(0 1 * 13 ? *)", "13", "is no month"),
            ("cron(0 1 ? * 8 *)", "8", "is no day of the week"),
            ("cron(0 1 ? * 0 *)", "0", "is no day of the week"),
            ("cron(0 1 ? * MON 20)", "20", "is no year"),
            ("cron(0 1 * * MON *)", "MON", "either"),
            ("cron(0 1 ? * ? *)", "?", "both"),
            ("cron(0 1 * * *)", "0 1 * * *", "5 fields are written, and 6"),
            ("0 1 * * ? *", "0 1 * * ? *", "6 fields are written, and 5"),
            ("0 1 * * ?", "?", "is no day of the week"),
            ("x 1 * * *", "x", "is no minute"),
            ("0 0 30 2 *", "0 0 30 2 *", "no such time"),
            ("rate(5 minutes", "rate(5 minutes", "not closed"),
            ("rate(minutes)", "minutes", "a number and a unit"),
            ("rate(5 weeks)", "weeks", "no unit"),
            ("rate(x minutes)", "x", "whole number"),
            ("rate(1 second)", "1", "from 10 seconds"),
            ("rate(99999999999999999999 days)", "99999999999999999999", "whole number"),
            ("every(5)", "every(5)", "neither"),
            ("@daily", "@daily", "1 fields"),
            ("", "", "0 fields"),
        ] {
            let bad = Timing::new(schedule, "UTC").err().unwrap_or_else(|| panic!("{schedule} is taken"));
            let told: String = schedule[bad.offset..].chars().take(bad.length).collect();
            // Of equal words the right one: told by its place from the end.
            assert_eq!(told, word, "{schedule}: {bad:?}");
            assert!(bad.message.contains(words), "{schedule}: {bad:?}");
        }
    }

    #[test]
    fn zones_are_built_in() {
        assert!(is_zone("Asia/Seoul") && is_zone("UTC") && !is_zone("Asia/Soul"));
        assert!(zones().iter().any(|zone| zone == "Europe/Berlin"));
    }
}
