//! `; name=value` behind the value of a header.

/// The parameters in `text`, in the order written, or `None` where two readers could understand
/// them differently. Values are as written, without the quotes.
///
/// A quoted value with a backslash before a quote is such a case: some readers take the quote for
/// part of the value, some for its end.
pub(crate) fn parameters(text: &str) -> Option<Vec<(&str, &str)>> {
    let mut read: Vec<(&str, &str)> = Vec::new();
    let mut rest = text.trim_matches(BLANK);
    while !rest.is_empty() {
        rest = rest.strip_prefix(';')?.trim_start_matches(BLANK);
        if rest.is_empty() {
            break;
        }
        let (name, value) = rest.split_once('=')?;
        if name.is_empty() || !name.bytes().all(is_plain) {
            return None;
        }
        let end = match value.strip_prefix('"') {
            Some(quoted) => {
                let end = quoted.find('"')?;
                let inside = quoted.get(..end)?;
                if inside.ends_with('\\') || inside.chars().any(char::is_control) {
                    return None;
                }
                read.push((name, inside));
                end + 2
            }
            None => {
                let end = value.find(';').unwrap_or(value.len());
                let plain = value.get(..end)?.trim_end_matches(BLANK);
                if plain.is_empty() || !plain.bytes().all(is_plain) {
                    return None;
                }
                read.push((name, plain));
                end
            }
        };
        rest = value.get(end..)?.trim_start_matches(BLANK);
    }
    Some(read)
}

/// The parameter of this name in any letter case: `Some(None)` where it is not there, `None`
/// where it is there twice or in a form with a `*`, which not every reader knows.
pub(crate) fn one_of<'a>(read: &[(&'a str, &'a str)], name: &str) -> Option<Option<&'a str>> {
    let mut found = None;
    for (given, value) in read {
        let plain = given.split('*').next().unwrap_or_default();
        if !plain.eq_ignore_ascii_case(name) {
            continue;
        }
        if plain.len() != given.len() || found.replace(*value).is_some() {
            return None;
        }
    }
    Some(found)
}

fn is_plain(byte: u8) -> bool {
    byte.is_ascii_graphic() && !matches!(byte, b'"' | b'\\' | b';' | b',')
}

const BLANK: [char; 2] = [' ', '\t'];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_read_quoted_or_not() {
        let check = |text, expected: &[(&str, &str)]| {
            assert_eq!(parameters(text).as_deref(), Some(expected), "{text}");
        };
        check("", &[]);
        check(" ; ", &[]);
        check("; charset=utf-8", &[("charset", "utf-8")]);
        check(";a=b;c=\"d; e=f\" ; g=h ;", &[("a", "b"), ("c", "d; e=f"), ("g", "h")]);
        check("; filename=\"C:\\x\\é.wav\"", &[("filename", "C:\\x\\é.wav")]);
        check("; boundary=----=_Part", &[("boundary", "----=_Part")]);
        check("; a=\"\"", &[("a", "")]);
    }

    #[test]
    fn what_two_readers_could_read_differently_is_not_read() {
        for text in [
            "a=b",
            "; a",
            "; a=",
            "; =b",
            "; a=b c",
            "; a=b\"c\"",
            "; a=\"b",
            "; a=\"b\"c",
            "; a=\"b\\\"; name=\\\"c\"",
            "; a=\"b\\\"",
            "; a=\"b\u{0}\"",
            "; a =b",
            "; a= b",
            "; a=b, c=d",
            ";; a=b",
        ] {
            assert_eq!(parameters(text), None, "{text}");
        }
    }

    #[test]
    fn a_parameter_is_there_once_or_not_read() {
        let one = |text| one_of(&parameters(text).expect("parameters"), "name");
        assert_eq!(one("; name=a; names=b"), Some(Some("a")));
        assert_eq!(one("; NAME=a"), Some(Some("a")));
        assert_eq!(one("; other=a"), Some(None));
        assert_eq!(one("; name=a; Name=a"), None);
        assert_eq!(one("; name*=utf-8''a"), None);
        assert_eq!(one("; name=a; name*0=b"), None);
    }
}
