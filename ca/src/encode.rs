//! DER by hand: a leaf is a dozen fixed structures around an ID, a key and four numbers, and writing them directly costs a
//! tenth of what a general library takes.

const SEQUENCE: u8 = 0x30;

/// One tag, its length, its contents.
pub(crate) fn tlv(tag: u8, contents: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(contents.len().saturating_add(6));
    push(&mut out, tag, contents);
    out
}

/// [`tlv`] at the end of `out`.
pub(crate) fn push(out: &mut Vec<u8>, tag: u8, contents: &[u8]) {
    out.push(tag);
    let length = contents.len();
    if length < 0x80 {
        out.extend(u8::try_from(length));
    } else {
        let bytes = length.to_be_bytes();
        let used: Vec<u8> = bytes.into_iter().skip_while(|byte| *byte == 0).collect();
        out.extend(u8::try_from(used.len()).map(|count| 0x80 | count));
        out.extend(used);
    }
    out.extend_from_slice(contents);
}

/// A SEQUENCE of these parts.
pub(crate) fn sequence(parts: &[&[u8]]) -> Vec<u8> {
    tlv(SEQUENCE, &parts.concat())
}

/// A BIT STRING of whole octets.
pub(crate) fn bit_string(bytes: &[u8]) -> Vec<u8> {
    tlv(0x03, &[&[0], bytes].concat())
}

/// A non-negative INTEGER, big endian.
pub(crate) fn unsigned(bytes: &[u8]) -> Vec<u8> {
    let significant = match bytes.iter().position(|byte| *byte != 0) {
        Some(first) => bytes.get(first..).unwrap_or_default(),
        None => &[0],
    };
    let sign: &[u8] = if significant.first().is_some_and(|first| first & 0x80 != 0) { &[0] } else { &[] };
    tlv(0x02, &[sign, significant].concat())
}

/// The time in the form RFC 5280 (4.1.2.5) demands: UTCTime up to 2049, GeneralizedTime from then on.
pub(crate) fn date(unix: u64) -> Vec<u8> {
    let (year, month, day) = civil(unix / 86_400);
    let second = unix % 86_400;
    let rest = format!("{month:02}{day:02}{:02}{:02}{:02}Z", second / 3_600, second / 60 % 60, second % 60);
    if year < 2050 {
        tlv(0x17, format!("{:02}{rest}", year % 100).as_bytes())
    } else {
        tlv(0x18, format!("{year:04}{rest}").as_bytes())
    }
}

/// Year, month and day of a day counted from 1970-01-01, in the proleptic Gregorian calendar: eras of 400 years that begin in
/// March, so that the leap day is the last of its year.
fn civil(days: u64) -> (u64, u64, u64) {
    let shifted = days + 719_468;
    let (era, of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let march_month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * march_month + 2) / 5 + 1;
    let month = if march_month < 10 { march_month + 3 } else { march_month - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    (year, month, day)
}

#[cfg(test)]
mod tests {
    use der::asn1::{GeneralizedTime, UintRef, UtcTime};
    use der::{Decode, Encode};

    use super::*;

    #[test]
    fn dates_are_those_of_the_library() {
        // Every day of two centuries, at a different second each.
        for day in 0..=73_000_u64 {
            let unix = day * 86_400 + day % 86_400;
            let duration = std::time::Duration::from_secs(unix);
            let expected = match UtcTime::from_unix_duration(duration) {
                Ok(time) => time.to_der().unwrap(),
                Err(_) => GeneralizedTime::from_unix_duration(duration).unwrap().to_der().unwrap(),
            };
            assert_eq!(date(unix), expected, "{unix}");
        }
    }

    #[test]
    fn lengths_and_integers_are_the_shortest() {
        for length in [0, 1, 127, 128, 255, 256, 65_535, 65_536] {
            let bytes = vec![7; length];
            let expected = der::asn1::OctetStringRef::new(&bytes).unwrap().to_der().unwrap();
            assert_eq!(tlv(0x04, &bytes), expected, "{length}");
        }
        for bytes in [&[0, 0][..], &[0, 1], &[0x7f], &[0x80], &[0, 0xff, 1]] {
            let encoded = unsigned(bytes);
            let back = UintRef::from_der(&encoded).unwrap();
            assert_eq!(UintRef::new(bytes).unwrap(), back);
        }
    }
}
