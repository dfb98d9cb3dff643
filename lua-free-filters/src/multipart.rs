//! `multipart/form-data` (RFC 7578), held whole, cut into its parts.
//!
//! Nothing is copied: a part is where it stands. Only what every reader must understand the same
//! way is read. The senders of forms make up a boundary that is nowhere in what they send; a body
//! where it is anywhere but between the parts is refused, because some readers would cut there.

mod head;
mod parameters;

use std::fmt;
use std::ops::Range;

use memchr::memmem;

pub(crate) use head::Part;
pub(crate) use parameters::{one_of, parameters};

/// Why a body cannot be read, in words for the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Malformed(pub(crate) &'static str);

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

/// The parts of a body, in the order sent. `boundary` is what [`boundary_of`] gave.
pub(crate) fn parts<'b>(body: &'b [u8], boundary: &str) -> Result<Vec<Part<'b>>, Malformed> {
    let delimiter = [b"--", boundary.as_bytes()].concat();
    let mut parts = Vec::new();
    // Where the part that is being read begins; none before the first delimiter.
    let mut begin = None;
    let mut is_complete = false;
    for at in memmem::find_iter(body, &delimiter) {
        if is_complete {
            return Err(Malformed("something follows the last boundary"));
        }
        if let Some(begin) = begin {
            let end = at.checked_sub(CRLF.len()).filter(|end| *end >= begin);
            let part = end.and_then(|end| body.get(begin..end).zip(body.get(end..at)));
            let Some((part, CRLF)) = part else { return Err(Malformed(STRAY)) };
            if parts.len() == PARTS_MAX {
                return Err(Malformed("there are too many parts"));
            }
            parts.push(head::part(part, begin)?);
        } else if at != 0 {
            return Err(Malformed("it does not begin with its boundary"));
        }
        let after = at + delimiter.len();
        match body.get(after..).unwrap_or_default() {
            [b'\r', b'\n', ..] => begin = Some(after + CRLF.len()),
            [b'-', b'-'] | [b'-', b'-', b'\r', b'\n'] => is_complete = true,
            _ => return Err(Malformed(STRAY)),
        }
    }
    match is_complete {
        true => Ok(parts),
        false => Err(Malformed("its last boundary is missing")),
    }
}

/// The boundary in the parameters of a content type: 1 to 70 characters of those that RFC 2046
/// allows.
pub(crate) fn boundary_of<'h>(read: &[(&'h str, &'h str)]) -> Option<&'h str> {
    let boundary = one_of(read, "boundary")??;
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"'()+_,-./:=? ".contains(&byte);
    let fits = (1..=BOUNDARY_BYTES_MAX).contains(&boundary.len());
    (fits && boundary.bytes().all(is_allowed) && !boundary.ends_with(' ')).then_some(boundary)
}

/// What stands in the body between two offsets.
pub(crate) fn text_of<'b>(body: &'b [u8], at: &Range<usize>) -> Option<&'b str> {
    std::str::from_utf8(body.get(at.clone())?).ok()
}

/// A body with more is refused. An edit of images has no more than 16 of them and a dozen fields.
pub(crate) const PARTS_MAX: usize = 64;
/// RFC 2046. A content type with a longer one is refused.
pub(crate) const BOUNDARY_BYTES_MAX: usize = 70;

const CRLF: &[u8] = b"\r\n";
const STRAY: &str = "its boundary is somewhere else than between two parts";

#[cfg(test)]
mod tests;
