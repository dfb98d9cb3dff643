//! Changes to a head, decided here and applied by the caller.

use std::fmt;

use http::{HeaderName, HeaderValue};

/// What to do to a head: first the removals, then the sets, so that nothing the other side names
/// for removal (in `Connection`, say) can take away what we set.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HeaderEdits {
    set: Vec<(HeaderName, HeaderValue)>,
    remove: Vec<HeaderName>,
}

/// The edit was not recorded, because [`EDITS_MAX`] are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooManyEdits;

impl HeaderEdits {
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets a header to exactly this value. The last set of a name is the one that counts.
    pub fn set(&mut self, name: HeaderName, value: HeaderValue) -> Result<(), TooManyEdits> {
        let is_full = self.is_full();
        match self.set.iter_mut().find(|(set, _)| *set == name) {
            Some(slot) => slot.1 = value,
            None if is_full => return Err(TooManyEdits),
            None => self.set.push((name, value)),
        }
        Ok(())
    }

    /// Removes every value of a header.
    pub fn remove(&mut self, name: HeaderName) -> Result<(), TooManyEdits> {
        match self.remove.contains(&name) {
            true => Ok(()),
            false if self.is_full() => Err(TooManyEdits),
            false => {
                self.remove.push(name);
                Ok(())
            }
        }
    }

    pub fn sets(&self) -> impl Iterator<Item = (&HeaderName, &HeaderValue)> {
        self.set.iter().map(|(name, value)| (name, value))
    }

    pub fn removes(&self) -> impl Iterator<Item = &HeaderName> {
        self.remove.iter()
    }

    pub fn len(&self) -> usize {
        self.set.len() + self.remove.len()
    }

    pub fn is_empty(&self) -> bool {
        self.set.is_empty() && self.remove.is_empty()
    }

    /// Removals of headers that a head really has, each once. They are bounded by that head and
    /// not by [`EDITS_MAX`]: a credential must not get through because a client sent sixty-four
    /// other headers before it.
    pub(crate) fn removing(present: impl Iterator<Item = HeaderName>) -> Self {
        Self { set: Vec::new(), remove: present.collect() }
    }

    fn is_full(&self) -> bool {
        self.len() >= EDITS_MAX
    }
}

impl fmt::Display for TooManyEdits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "more than {EDITS_MAX} header edits")
    }
}

impl std::error::Error for TooManyEdits {}

/// Edits of one head. Beyond it an edit is refused, and the caller refuses the request.
pub const EDITS_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    fn name(number: usize) -> HeaderName {
        HeaderName::try_from(format!("x-{number}")).expect("a valid name")
    }

    #[test]
    fn edits_beyond_the_bound_are_refused_and_say_so() {
        let mut edits = HeaderEdits::new();
        assert!(edits.is_empty());
        for number in 0..EDITS_MAX {
            let edit = match number % 2 {
                0 => edits.set(name(number), HeaderValue::from_static("v")),
                _ => edits.remove(name(number)),
            };
            assert_eq!(edit, Ok(()));
        }
        assert_eq!(edits.set(name(EDITS_MAX), HeaderValue::from_static("v")), Err(TooManyEdits));
        assert_eq!(edits.remove(name(EDITS_MAX)), Err(TooManyEdits));
        assert_eq!(edits.len(), EDITS_MAX);
    }

    #[test]
    fn an_edit_of_the_same_header_takes_no_room() {
        let mut edits = HeaderEdits::new();
        for number in 0..=EDITS_MAX {
            let value = HeaderValue::from(number);
            assert_eq!(edits.set(name(1), value), Ok(()));
            assert_eq!(edits.remove(name(2)), Ok(()));
        }
        let sets: Vec<_> = edits.sets().collect();
        assert_eq!(sets, [(&name(1), &HeaderValue::from(EDITS_MAX))]);
        assert_eq!(edits.removes().collect::<Vec<_>>(), [&name(2)]);
    }
}
