//! Reads Rust and Markdown as far as the rules need it.

/// Whether `text` has `pattern` as whole words.
pub(crate) fn names(text: &str, pattern: &str) -> bool {
    let (word, open_end) = match pattern.strip_suffix('*') {
        Some(word) => (word, true),
        None => (pattern, false),
    };
    let part_of_word = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '_');
    text.match_indices(word).any(|(at, _)| {
        let (before, rest) = text.split_at(at);
        let after = &rest[word.len()..];
        let starts = !part_of_word(word.chars().next()) || !part_of_word(before.chars().last());
        let ends = !part_of_word(word.chars().last()) || !part_of_word(after.chars().next());
        starts && (ends || open_end)
    })
}

/// The code that ships: comments and text literals are blanked, the unit tests are cut off. The
/// lines keep their numbers.
pub(crate) fn shipped(text: &str) -> String {
    let text = text.split("#[cfg(test)]\nmod ").next().unwrap_or(text);
    let mut code = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(next) = rest.chars().next() {
        let blank = literal_or_comment(rest);
        let (piece, after) = rest.split_at(blank.unwrap_or(next.len_utf8()));
        match blank {
            Some(_) => code.extend(piece.chars().map(|c| if c == '\n' { '\n' } else { ' ' })),
            None => code.push_str(piece),
        }
        rest = after;
    }
    code
}

/// The length of the comment or literal at the start of `rest`, if there is one.
fn literal_or_comment(rest: &str) -> Option<usize> {
    let through = |end: &str, from: usize| {
        rest[from..].find(end).map_or(rest.len(), |at| from + at + end.len())
    };
    if rest.starts_with("//") {
        return Some(rest.find('\n').unwrap_or(rest.len()));
    }
    if rest.starts_with("/*") {
        return Some(through("*/", 0));
    }
    if let Some(raw) = rest.strip_prefix('r') {
        let hashes = raw.len() - raw.trim_start_matches('#').len();
        let open = raw[hashes..].starts_with('"');
        return open.then(|| through(&format!("\"{}", "#".repeat(hashes)), hashes + 2));
    }
    // A lifetime has no quote after one character.
    let is_char = rest.starts_with("'\\") || rest.chars().nth(2) == Some('\'');
    match rest.chars().next()? {
        '"' => escaped(&rest[1..], '"').map(|length| 1 + length),
        '\'' if is_char => escaped(&rest[1..], '\'').map(|length| 1 + length),
        _ => None,
    }
}

/// The length up to and with the first `end` that no backslash precedes.
fn escaped(rest: &str, end: char) -> Option<usize> {
    let mut escaped = false;
    for (at, c) in rest.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            _ if c == end => return Some(at + c.len_utf8()),
            _ => {}
        }
    }
    None
}

/// Line and length of each function. rustfmt closes a body at the column where it was opened, so
/// no braces need counting.
pub(crate) fn functions(text: &str) -> impl Iterator<Item = (usize, usize)> {
    let lines: Vec<&str> = text.lines().collect();
    (0..lines.len()).filter_map(move |at| {
        let lines = &lines[at..];
        let first = lines.first()?;
        let code = first.trim_start();
        let (head, _) = code.split_once("fn ")?;
        if !head.split_whitespace().all(|word| FN_HEADS.iter().any(|known| word.starts_with(known)))
        {
            return None;
        }
        // A signature without a body ends in `;`, a body on one line in `}`.
        let opens = lines.iter().find(|line| line.ends_with(['{', '}', ';']))?.ends_with('{');
        let close = format!("{}}}", " ".repeat(first.len() - code.len()));
        let last = lines.iter().position(|line| *line == close)?;
        opens.then_some((at + 1, last + 1))
    })
}

/// Targets of Markdown links within the repository.
pub(crate) fn links(markdown: &str) -> impl Iterator<Item = &str> {
    let inside = |link: &&str| !link.contains("://") && !link.starts_with('#') && !link.is_empty();
    after(markdown, "](").map(|rest| until(rest, ")#")).filter(inside)
}

/// What stands in backquotes and looks like a path of this repository.
pub(crate) fn quoted_paths(markdown: &str) -> impl Iterator<Item = &str> {
    let quoted = markdown.split('`').skip(1).step_by(2);
    quoted.filter(|text| {
        let top = text.split('/').next().unwrap_or_default();
        TOP.contains(&top) && text.len() > top.len() && !text.contains([' ', '*', '\n'])
    })
}

/// From the heading to the next one of its rank.
pub(crate) fn section<'t>(markdown: &'t str, heading: &'t str) -> &'t str {
    after(markdown, heading).next().map_or("", |rest| rest.split("\n## ").next().unwrap_or(rest))
}

/// What follows each place where `mark` stands.
pub(crate) fn after<'t>(text: &'t str, mark: &'t str) -> impl Iterator<Item = &'t str> {
    text.match_indices(mark).map(move |(at, _)| &text[at + mark.len()..])
}

/// The text before the first of the characters in `ends`.
pub(crate) fn until<'t>(text: &'t str, ends: &str) -> &'t str {
    text.split(|c| ends.contains(c)).next().unwrap_or(text)
}

pub(crate) fn folder(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(folder, _)| folder)
}

pub(crate) fn is_word(text: &str) -> bool {
    !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

/// What may stand before `fn`.
const FN_HEADS: &[&str] = &["pub", "async", "const", "unsafe", "in", "self", "super", "crate"];

/// Where paths of this repository begin.
const TOP: &[&str] = &["src", "lua-free-filters", "tests", "conf", "deploy", ".ci", ".config"];
