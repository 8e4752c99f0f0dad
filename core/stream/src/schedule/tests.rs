//! Patterns and the times that they stand for.

use super::*;

fn time(text: &str) -> Time {
    Time::parse_rfc3339(text).expect(text)
}

fn pattern(text: &str, zone: Option<&str>) -> Result<Pattern, Invalid> {
    Pattern::parse(text.as_bytes(), zone.map(str::as_bytes))
}

/// Asked from nats-server 2.15.1.
#[test]
fn accepts_what_nats_server_accepts() {
    let valid = [
        "@at 2020-01-01T00:00:00Z",
        "@at 2020-01-01T00:00:00+02:00",
        "@every 1s",
        "@every 1s500ms",
        "@every 1h",
        "@hourly",
        "@yearly",
        "@annually",
        "@monthly",
        "@weekly",
        "@daily",
        "@midnight",
        "* * * * * *",
        "*/5 * * * * *",
        "0 0 0 * * 6",
        "0 0 0 * jan *",
        "0 0 0 * JAN-Mar mon,FRI",
        "0 0 0 ? * ?",
        "1-5/2 * * * * *",
        "5/10 * * * * *",
        "*-5 * * * * *",
        "1,2,,3 * * * * *",
        "0 0 0 29 2 *",
        "  0 0 0 1 1 *",
        "0\t0 0 1 1 *",
        "+1 * * * * *",
        "01 * * * * *",
        "1/100 * * * * *",
        "*/100 * * * * *",
    ];
    let now = time("2026-11-26T07:49:29Z");
    for text in valid {
        assert!(pattern(text, None).is_ok_and(|pattern| pattern.first(now).is_some()), "{text}");
    }
    let invalid = [
        "@at 2020-01-01",
        "@at  2020-01-01T00:00:00Z",
        "@at",
        "@at ",
        "@every 500ms",
        "@every",
        "@every x",
        "@every -1s",
        "@every  1s",
        "@Hourly",
        "@minutely",
        "* * * * *",
        "60 * * * * *",
        "0 0 24 * * *",
        "0 0 0 0 * *",
        "0 0 0 32 * *",
        "0 0 0 * 13 *",
        "0 0 0 * 0 *",
        "0 0 0 * * 7",
        "5-1 * * * * *",
        "*/0 * * * * *",
        "L * * * * *",
        "0 0 0 1 1 * *",
        "0 0 0 jan * *",
        "0 0 0 * * sunday",
        "-1 * * * * *",
        "1--2 * * * * *",
        "1-2-3 * * * * *",
        "1/2/3 * * * * *",
        ", * * * * *",
        "0 0 0 30 2 *",
        "0 0 0 31 4 *",
    ];
    for text in invalid {
        assert!(pattern(text, None).map_or(None, |pattern| pattern.first(now)).is_none(), "{text}");
    }
}

#[test]
fn time_zones_are_for_cron_alone() {
    for (text, zone, expected) in [
        ("0 0 5 * * *", Some("Europe/Amsterdam"), None),
        ("@daily", Some("America/New_York"), None),
        ("0 0 5 * * *", Some("UTC"), None),
        ("0 0 5 * * *", Some("Nope/Zone"), Some(Invalid::TimeZone)),
        ("0 0 5 * * *", Some(""), Some(Invalid::TimeZone)),
        ("0 0 5 * * *", Some("Local"), Some(Invalid::TimeZone)),
        ("@every 1h", Some("UTC"), Some(Invalid::Pattern)),
        ("@at 2020-01-01T00:00:00Z", Some("UTC"), Some(Invalid::Pattern)),
    ] {
        assert_eq!(pattern(text, zone).err(), expected, "{text} {zone:?}");
    }
}

#[test]
fn the_next_times() {
    let cases = [
        ("*/2 * * * * *", None, "2026-11-26T07:49:31.03Z", "2026-11-26T07:49:32Z"),
        ("0 0 0 29 2 *", None, "2026-11-26T07:49:31Z", "2028-02-29T00:00:00Z"),
        ("@weekly", None, "2026-11-26T07:49:31Z", "2026-11-29T00:00:00Z"),
        ("@yearly", None, "2026-12-31T23:59:59.9Z", "2027-01-01T00:00:00Z"),
        ("30 59 23 31 dec *", None, "2026-12-31T23:59:30Z", "2027-12-31T23:59:30Z"),
        // Days: both when one has a star, either when none has; a step takes the star away.
        ("0 0 0 13 * fri", None, "2026-11-26T07:49:31Z", "2026-11-27T00:00:00Z"),
        ("0 0 0 13 * *", None, "2026-11-26T07:49:31Z", "2026-12-13T00:00:00Z"),
        ("0 0 0 */30 * tue", None, "2026-11-26T07:49:31Z", "2026-12-01T00:00:00Z"),
        ("0 0 0 */29 * tue", None, "2026-11-26T07:49:31Z", "2026-11-30T00:00:00Z"),
        ("0 0 0 */29 * *", None, "2026-11-30T07:49:31Z", "2026-12-01T00:00:00Z"),
        // In winter and in summer.
        ("0 0 5 * * *", Some("Europe/Amsterdam"), "2026-11-26T07:49:31Z", "2026-11-27T04:00:00Z"),
        ("0 0 5 * * *", Some("Europe/Amsterdam"), "2026-07-26T07:49:31Z", "2026-07-27T03:00:00Z"),
        ("0 0 5 * * *", Some("America/New_York"), "2026-11-26T07:49:31Z", "2026-11-26T10:00:00Z"),
        // The hour from 2 to 3 does not exist on that day; the one from 2 to 3 on the other is there twice.
        ("0 30 2 * * *", Some("Europe/Amsterdam"), "2026-03-28T12:00:00Z", "2026-03-30T00:30:00Z"),
        ("0 0 * * * *", Some("Europe/Amsterdam"), "2026-03-29T00:30:00Z", "2026-03-29T01:00:00Z"),
        ("0 30 2 * * *", Some("Europe/Amsterdam"), "2026-10-24T12:00:00Z", "2026-10-25T00:30:00Z"),
        ("0 30 2 * * *", Some("Europe/Amsterdam"), "2026-10-25T00:30:00Z", "2026-10-25T01:30:00Z"),
        ("0 30 2 * * *", Some("Europe/Amsterdam"), "2026-10-25T01:30:00Z", "2026-10-26T01:30:00Z"),
        ("@every 1s", None, "2026-11-26T07:49:29.463Z", "2026-11-26T07:49:30Z"),
        ("@every 1m", None, "2026-11-26T07:49:29.5Z", "2026-11-26T07:50:30Z"),
    ];
    for (text, zone, now, expected) in cases {
        let first = pattern(text, zone).expect(text).first(time(now));
        assert_eq!(first, Some(time(expected)), "{text} {zone:?} {now}");
    }
}

#[test]
fn what_was_missed_is_skipped() {
    let (due, late) = (time("2026-11-26T07:49:36Z"), time("2026-11-26T07:49:38.976Z"));
    for (text, expected) in [
        ("@every 1s", Some("2026-11-26T07:49:40Z")),
        ("@every 1h", Some("2026-11-26T08:49:36Z")),
        ("*/2 * * * * *", Some("2026-11-26T07:49:40Z")),
        ("@at 2026-11-26T07:49:36Z", None),
    ] {
        assert_eq!(pattern(text, None).expect(text).next(due, late), expected.map(time), "{text}");
    }
}

#[test]
fn times_are_shown_in_their_zone() {
    let at = time("2026-11-26T07:49:43.5Z");
    for (text, zone, expected) in [
        ("@every 1s", None, "2026-11-26T07:49:43Z"),
        ("@daily", Some("Europe/Amsterdam"), "2026-11-26T08:49:43+01:00"),
        ("@daily", Some("America/St_Johns"), "2026-11-26T04:19:43-03:30"),
    ] {
        assert_eq!(pattern(text, zone).expect(text).show(at), expected);
    }
}
