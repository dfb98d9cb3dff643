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
