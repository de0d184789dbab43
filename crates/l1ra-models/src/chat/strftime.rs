//! Python's `strftime`, for templates that name the day.

use minijinja::{Error, ErrorKind};

const DAYS: [&str; 7] = [
    "Thursday", // 1 January 1970
    "Friday",
    "Saturday",
    "Sunday",
    "Monday",
    "Tuesday",
    "Wednesday",
];

const MONTHS: [(&str, u64); 12] = [
    ("January", 31),
    ("February", 28),
    ("March", 31),
    ("April", 30),
    ("May", 31),
    ("June", 30),
    ("July", 31),
    ("August", 31),
    ("September", 30),
    ("October", 31),
    ("November", 30),
    ("December", 31),
];

/// Python's `strftime` in English, for seconds since 1970, UTC.
pub(super) fn strftime(format: &str, seconds: u64) -> Result<String, Error> {
    let (days, rest) = (seconds / 86_400, seconds % 86_400);
    let leap = |year: u64| {
        year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
    };
    let (mut year, mut day) = (1970, days);
    while day >= 365 + u64::from(leap(year)) {
        day -= 365 + u64::from(leap(year));
        year += 1;
    }
    let of_year = day + 1;
    let mut month = 0;
    let length = |month: usize| MONTHS[month].1 + u64::from(month == 1 && leap(year));
    while day >= length(month) {
        day -= length(month);
        month += 1;
    }
    let (hour, minute, second) = (rest / 3600, rest / 60 % 60, rest % 60);
    let (name, weekday) = (MONTHS[month].0, DAYS[(days % 7) as usize]);
    let mut text = String::new();
    let mut letters = format.chars();
    while let Some(letter) = letters.next() {
        if letter != '%' {
            text.push(letter);
            continue;
        }
        match letters.next() {
            Some('Y') => text += &year.to_string(),
            Some('y') => text += &format!("{:02}", year % 100),
            Some('m') => text += &format!("{:02}", month + 1),
            Some('B') => text += name,
            Some('b') => text += &name[..3],
            Some('d') => text += &format!("{:02}", day + 1),
            Some('j') => text += &format!("{of_year:03}"),
            Some('A') => text += weekday,
            Some('a') => text += &weekday[..3],
            Some('H') => text += &format!("{hour:02}"),
            Some('I') => text += &format!("{:02}", (hour + 11) % 12 + 1),
            Some('p') => text += if hour < 12 { "AM" } else { "PM" },
            Some('M') => text += &format!("{minute:02}"),
            Some('S') => text += &format!("{second:02}"),
            Some('%') => text.push('%'),
            other => {
                let seen = other.map_or("%".into(), |letter| format!("%{letter}"));
                let detail = format!("strftime_now: `{seen}` is not supported");
                return Err(Error::new(ErrorKind::InvalidOperation, detail));
            }
        }
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_python_s() {
        let all = "%a %A %d %b %B %m %y %Y %j %H %I %p %M %S 100%%";
        let cases = [
            (
                0,
                "Thu Thursday 01 Jan January 01 70 1970 001 00 12 AM 00 00 100%",
            ),
            (
                951_782_399,
                "Mon Monday 28 Feb February 02 00 2000 059 23 11 PM 59 59 100%",
            ),
            (
                951_782_400,
                "Tue Tuesday 29 Feb February 02 00 2000 060 00 12 AM 00 00 100%",
            ),
            (
                1_735_646_400,
                "Tue Tuesday 31 Dec December 12 24 2024 366 12 12 PM 00 00 100%",
            ),
            (
                4_107_542_400,
                "Mon Monday 01 Mar March 03 00 2100 060 00 12 AM 00 00 100%",
            ),
        ];
        for (seconds, text) in cases {
            assert_eq!(strftime(all, seconds).unwrap(), text);
        }
        for format in ["%Q", "%", "%-d"] {
            let error = strftime(format, 0).unwrap_err().to_string();
            assert!(error.contains("is not supported"), "{error}");
        }
    }
}
