//! Which request ids of a client's are kept.

/// Accepts 1 to [`REQUEST_ID_BYTES_MAX`] visible ASCII characters. Anything else is not
/// repaired: the caller makes an id of its own, so that what is logged is never half of what was
/// sent.
pub fn accept(value: &[u8]) -> Option<&str> {
    if value.is_empty() || value.len() > REQUEST_ID_BYTES_MAX {
        return None;
    }
    if !value.iter().all(u8::is_ascii_graphic) {
        return None;
    }
    std::str::from_utf8(value).ok()
}

pub const REQUEST_ID_BYTES_MAX: usize = 128;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn visible_characters_are_kept_as_they_are() {
        assert_eq!(accept(b"req_01!~"), Some("req_01!~"));
        for refused in [&b""[..], b"a b", b" a", b"a\t", b"a\r\nx: y", b"\x7f", "ä".as_bytes()] {
            assert_eq!(accept(refused), None, "{refused:?}");
        }
    }

    #[test]
    fn the_bound_is_the_last_length_accepted() {
        let id = [b'x'; REQUEST_ID_BYTES_MAX + 1];
        assert!(accept(&id[1..]).is_some());
        assert!(accept(&id).is_none());
    }

    proptest! {
        #[test]
        fn what_is_accepted_is_what_was_sent(value in prop::collection::vec(any::<u8>(), 0..200)) {
            let good = (1..=128).contains(&value.len())
                && value.iter().all(|byte| (0x21..=0x7e).contains(byte));
            prop_assert_eq!(accept(&value).map(str::as_bytes), good.then_some(value.as_slice()));
        }
    }
}
