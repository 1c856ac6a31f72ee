//! What a plain scalar means to Kubernetes (`sigs.k8s.io/yaml`, which resolves as Go's yaml.v2 does).

/// The type of a scalar.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Text,
    Null,
    Bool,
    Int,
    Float,
    /// The key `<<`.
    Merge,
}

impl Kind {
    pub(crate) fn what(self) -> &'static str {
        match self {
            Self::Text | Self::Merge => "text",
            Self::Null => "null",
            Self::Bool => "a boolean",
            Self::Int => "a whole number",
            Self::Float => "a decimal number",
        }
    }

    /// The type of a scalar written without quotes.
    pub(crate) fn of_plain(text: &str) -> Self {
        match text {
            "" | "~" | "null" | "Null" | "NULL" => Self::Null,
            "<<" => Self::Merge,
            "y" | "Y" | "yes" | "Yes" | "YES" | "true" | "True" | "TRUE" | "on" | "On" | "ON" | "n" | "N" | "no"
            | "No" | "NO" | "false" | "False" | "FALSE" | "off" | "Off" | "OFF" => Self::Bool,
            ".nan" | ".NaN" | ".NAN" | ".inf" | ".Inf" | ".INF" | "+.inf" | "+.Inf" | "+.INF" | "-.inf" | "-.Inf"
            | "-.INF" => Self::Float,
            _ => Self::of_number(text),
        }
    }

    fn of_number(text: &str) -> Self {
        let numeric = |byte: u8| byte.is_ascii_digit() || matches!(byte, b'+' | b'-' | b'.');
        if !text.bytes().next().is_some_and(numeric) {
            return Self::Text;
        }
        let plain = text.replace('_', "");
        if is_int(&plain) {
            Self::Int
        } else if is_float(&plain) {
            Self::Float
        } else {
            Self::Text
        }
    }
}

/// Go's `ParseInt` with base 0: decimal, or with the prefixes `0x`, `0o`, `0b`, or octal with a leading 0.
fn is_int(text: &str) -> bool {
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    let all = |rest: &str, radix: u32| !rest.is_empty() && rest.chars().all(|digit| digit.is_digit(radix));
    let lower = digits.to_ascii_lowercase();
    if let Some(rest) = lower.strip_prefix("0x") {
        all(rest, 16)
    } else if let Some(rest) = lower.strip_prefix("0o") {
        all(rest, 8)
    } else if let Some(rest) = lower.strip_prefix("0b") {
        all(rest, 2)
    } else if lower.len() > 1 && lower.starts_with('0') {
        all(&lower, 8)
    } else {
        all(&lower, 10)
    }
}

/// `[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?`
fn is_float(text: &str) -> bool {
    let text = text.strip_prefix(['+', '-']).unwrap_or(text);
    let (mantissa, exponent) = match text.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, Some(exponent)),
        None => (text, None),
    };
    let digits = |rest: &str| !rest.is_empty() && rest.bytes().all(|byte| byte.is_ascii_digit());
    let exponent_ok = exponent.is_none_or(|rest| digits(rest.strip_prefix(['+', '-']).unwrap_or(rest)));
    let mantissa_ok = match mantissa.split_once('.') {
        Some(("", fraction)) => digits(fraction),
        Some((whole, fraction)) => digits(whole) && (fraction.is_empty() || digits(fraction)),
        None => digits(mantissa),
    };
    exponent_ok && mantissa_ok
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_scalars_mean_what_kubernetes_reads() {
        let table = [
            (Kind::Null, &["", "~", "null", "NULL"][..]),
            (Kind::Bool, &["true", "Yes", "off", "n", "Y"]),
            (Kind::Int, &["0", "8080", "-1", "+7", "0x1F", "0o17", "017", "0b101", "1_000"]),
            (Kind::Float, &["1.10", ".5", "1.", "1e3", "-2.5E-3", ".inf", "089"]),
            (
                Kind::Text,
                &["10.0.0.1", "10.0.0.0/8", "1:30", "2026-01-02", "v1", "-", "+", ".", "e3", "1e", "tRue", "::1", "0x"],
            ),
            (Kind::Merge, &["<<"]),
        ];
        for (kind, texts) in table {
            for text in texts {
                assert_eq!(Kind::of_plain(text), kind, "{text}");
            }
        }
    }
}
