//! What is wrong with a configuration: every mistake, where it stands, and what it should be.

use std::fmt;
use std::path::PathBuf;

/// One mistake of whoever wrote the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistake {
    /// Where it stands; nothing when the file could not be read that far.
    pub line: Option<usize>,
    /// The path of the key, as in `upstreams[0].base_url`.
    pub path: String,
    pub message: String,
}

/// Every mistake of one file, by line. Its `Display` is one line for each of them, in the form
/// that editors jump to: `nutgate.yaml:14: upstreams[0].base_url: …`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistakes {
    pub file: String,
    pub all: Vec<Mistake>,
}

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum NotLoaded {
    #[error("{}: {error}", path.display())]
    Unreadable { path: PathBuf, error: std::io::Error },
    #[error(transparent)]
    Mistakes(#[from] Mistakes),
}

impl std::error::Error for Mistakes {}

impl fmt::Display for Mistakes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, mistake) in self.all.iter().enumerate() {
            if index > 0 {
                writeln!(f)?;
            }
            write!(f, "{}:", self.file)?;
            if let Some(line) = mistake.line {
                write!(f, "{line}:")?;
            }
            if !mistake.path.is_empty() {
                write!(f, " {}:", mistake.path)?;
            }
            write!(f, " {}", mistake.message)?;
        }
        Ok(())
    }
}

/// The way from the top of a file to one of its values.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct KeyPath(Vec<Step>);

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    Key(String),
    Index(usize),
}

impl KeyPath {
    pub(super) fn key(&self, key: &str) -> Self {
        self.then(Step::Key(key.to_owned()))
    }

    pub(super) fn index(&self, index: usize) -> Self {
        self.then(Step::Index(index))
    }

    pub(super) fn steps(&self) -> &[Step] {
        &self.0
    }

    fn then(&self, step: Step) -> Self {
        let mut steps = self.0.clone();
        steps.push(step);
        Self(steps)
    }
}

impl From<&str> for KeyPath {
    fn from(key: &str) -> Self {
        Self::default().key(key)
    }
}

impl From<&serde_path_to_error::Path> for KeyPath {
    fn from(path: &serde_path_to_error::Path) -> Self {
        use serde_path_to_error::Segment;
        let step = |segment: &Segment| match segment {
            Segment::Seq { index } => Some(Step::Index(*index)),
            Segment::Map { key } => Some(Step::Key(key.clone())),
            Segment::Enum { .. } | Segment::Unknown => None,
        };
        Self(path.iter().filter_map(step).collect())
    }
}

impl fmt::Display for KeyPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (depth, step) in self.0.iter().enumerate() {
            match step {
                Step::Index(index) => write!(f, "[{index}]")?,
                Step::Key(key) if depth == 0 => f.write_str(key)?,
                Step::Key(key) => write!(f, ".{key}")?,
            }
        }
        Ok(())
    }
}

/// The mistakes found so far. One value has at most one: what follows from a first mistake would
/// only hide the others.
#[derive(Debug, Default)]
pub(super) struct Found(Vec<(KeyPath, Which, String)>);

/// Which of the places where a key stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Which {
    /// Where its value is read.
    First,
    /// Where it is given once more.
    Last,
}

impl Found {
    pub(super) fn add(&mut self, path: KeyPath, message: impl Into<String>) {
        self.add_at(path, Which::First, message.into());
    }

    pub(super) fn add_repeated(&mut self, path: KeyPath) {
        self.add_at(path, Which::Last, "given twice".to_owned());
    }

    pub(super) fn has(&self, path: &KeyPath) -> bool {
        self.0.iter().any(|(known, which, _)| known == path && *which == Which::First)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Ordered by line, those of one line as they were found.
    pub(super) fn into_mistakes(
        self,
        file: &str,
        line_of: impl Fn(&KeyPath, Which) -> Option<usize>,
    ) -> Mistakes {
        let place = |(path, which, message): (KeyPath, Which, String)| Mistake {
            line: line_of(&path, which),
            path: path.to_string(),
            message,
        };
        let mut all: Vec<Mistake> = self.0.into_iter().map(place).collect();
        all.sort_by_key(|mistake| mistake.line);
        Mistakes { file: file.to_owned(), all }
    }

    fn add_at(&mut self, path: KeyPath, which: Which, message: String) {
        if !self.0.iter().any(|(known, place, _)| *known == path && *place == which) {
            self.0.push((path, which, message));
        }
    }
}

/// ` (did you mean …?)` when one of `known` is close to what was written, else nothing.
pub(super) fn did_you_mean<'k>(written: &str, known: impl IntoIterator<Item = &'k str>) -> String {
    let near = known
        .into_iter()
        .map(|word| (distance(written, word), word))
        .filter(|(distance, word)| *distance <= (word.len() / 3).max(1))
        .min();
    match near {
        Some((_, word)) => format!(" (did you mean `{word}`?)"),
        None => String::new(),
    }
}

/// How many letters must be added, dropped, replaced or swapped with their neighbour to turn one
/// word into the other.
fn distance(one: &str, other: &str) -> usize {
    let one: Vec<char> = one.chars().collect();
    let other: Vec<char> = other.chars().collect();
    let mut rows: Vec<Vec<usize>> = vec![(0..=other.len()).collect()];
    for i in 1..=one.len() {
        let mut row = vec![i];
        for j in 1..=other.len() {
            let replaced = rows[i - 1][j - 1] + usize::from(one[i - 1] != other[j - 1]);
            let mut least = replaced.min(rows[i - 1][j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && one[i - 1] == other[j - 2] && one[i - 2] == other[j - 1] {
                least = least.min(rows[i - 2][j - 2] + 1);
            }
            row.push(least);
        }
        rows.push(row);
    }
    rows[one.len()][other.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_is_recognised_and_a_different_word_is_not() {
        let known = ["listen", "limits", "models"];
        assert_eq!(did_you_mean("model", known), " (did you mean `models`?)");
        assert_eq!(did_you_mean("lsiten", known), " (did you mean `listen`?)");
        assert_eq!(did_you_mean("webhooks", known), "");
        assert_eq!(distance("kitten", "sitting"), 3);
        assert_eq!(distance("idel", "idle"), 1);
        assert_eq!(distance("", "abc"), 3);
        assert_eq!(distance("abc", ""), 3);
    }
}
