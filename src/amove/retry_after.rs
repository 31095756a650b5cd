//! `Retry-After`: how long an answer asks us to stay away (RFC 9110 section 10.2.3).

use std::time::Duration;

use http::{HeaderMap, header};
use jiff::Timestamp;

/// How long; zero if that is over already. A date is measured by the answer's own `Date`, so that
/// it does not matter whose clock is wrong, and by `now` only where there is none. What is malformed,
/// or there twice, says nothing.
pub fn read(headers: &HeaderMap, now: Timestamp) -> Option<Duration> {
    let mut fields = headers.get_all(header::RETRY_AFTER).iter();
    let (Some(field), None) = (fields.next(), fields.next()) else { return None };
    let text = field.to_str().ok()?.trim();
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        // More than fits is still a number of seconds: a very large one.
        return Some(Duration::from_secs(text.parse().unwrap_or(u64::MAX)));
    }
    let sent = headers.get(header::DATE).and_then(|date| moment(date.to_str().ok()?));
    let pause = moment(text)?.duration_since(sent.unwrap_or(now));
    Some(pause.try_into().unwrap_or(Duration::ZERO))
}

fn moment(text: &str) -> Option<Timestamp> {
    Timestamp::try_from(httpdate::parse_http_date(text).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    /// 2026-11-06T08:49:37Z.
    const NOW: i64 = 1_793_954_977;

    fn read_at(fields: &[(&'static str, &str)]) -> Option<Duration> {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(*name, HeaderValue::from_str(value).unwrap());
        }
        read(&headers, Timestamp::from_second(NOW).unwrap())
    }

    #[track_caller]
    fn check(text: &str, expected: Option<u64>) {
        assert_eq!(read_at(&[("retry-after", text)]), expected.map(Duration::from_secs), "{text}");
    }

    #[test]
    fn it_is_seconds_or_a_date_and_anything_else_says_nothing() {
        check("0", Some(0));
        check("20", Some(20));
        check("007", Some(7));
        check("99999999999999999999999", Some(u64::MAX));
        check("Fri, 06 Nov 2026 08:49:57 GMT", Some(20));
        check("Friday, 06-Nov-26 08:49:57 GMT", Some(20));
        check("Fri Nov  6 08:49:57 2026", Some(20));
        check("Fri, 06 Nov 2026 08:00:00 GMT", Some(0));

        for malformed in
            ["", "-1", "+5", "1.5", "1e3", "0x10", "5s", "5, 6", "soon", "2026-11-06T08:49:57Z"]
        {
            check(malformed, None);
        }
        assert_eq!(read_at(&[]), None);
        assert_eq!(read_at(&[("retry-after", "1"), ("retry-after", "2")]), None);
    }

    #[test]
    fn a_date_is_measured_by_the_clock_of_whoever_wrote_it() {
        let date = ("date", "Thu, 05 Nov 2026 00:00:00 GMT");

        let pause = read_at(&[date, ("retry-after", "Thu, 05 Nov 2026 00:00:30 GMT")]);

        assert_eq!(pause, Some(Duration::from_secs(30)));
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..Default::default() })]

        #[test]
        fn whatever_stands_there_is_read_or_ignored(bytes: Vec<u8>) {
            if let Ok(value) = HeaderValue::from_bytes(&bytes) {
                let headers = HeaderMap::from_iter([(header::RETRY_AFTER, value)]);
                let _ = read(&headers, Timestamp::UNIX_EPOCH);
            }
        }
    }
}
