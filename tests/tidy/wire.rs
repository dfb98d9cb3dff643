//! The table of what the wire promises: every row names tests, and they exist.

use crate::read::is_word;
use crate::repository::{File, files, text_of};

#[test]
fn every_promise_of_the_wire_is_shown_by_a_test_that_exists() {
    let files = files();
    let table = text_of(&files, "tests/wire/README.md");
    let sections: Vec<&str> = table.split("\n## ").skip(1).collect();
    assert_eq!(sections.len(), SECTIONS, "the contract has so many sections");
    let mut offences = Vec::new();
    for section in sections {
        let rows: Vec<&str> = rows(section).collect();
        let heading = section.lines().next().unwrap_or_default();
        assert!(!rows.is_empty(), "no row under {heading}");
        offences.extend(rows.iter().flat_map(|row| mistakes(row, &files)));
    }
    assert!(offences.is_empty(), "\n{}\n", offences.join("\n"));
}

/// The lines of a table but for its head.
fn rows(section: &str) -> impl Iterator<Item = &str> {
    section.lines().filter(|line| line.starts_with('|')).skip(2)
}

/// What is wrong with a row.
fn mistakes(row: &str, files: &[File]) -> Vec<String> {
    let cells: Vec<&str> = row.trim_matches('|').split('|').map(str::trim).collect();
    let &[promise, shown_by] = cells.as_slice() else {
        return vec![format!("a row has two cells: {row}")];
    };
    let named: Vec<&str> = shown_by.split(',').map(|name| name.trim().trim_matches('`')).collect();
    let missing = named.iter().filter(|name| !is_test(name, files));
    missing.map(|name| format!("no test `{name}` shows: {promise}")).collect()
}

/// Whether a file has a test of this name: `path::name`.
fn is_test(name: &str, files: &[File]) -> bool {
    let Some((path, function)) = name.split_once("::") else { return false };
    let Some(file) = files.iter().find(|file| file.path == path) else { return false };
    if !is_word(function) {
        return false;
    }
    if !file.is_rust() {
        return function.starts_with("test_") && file.text.contains(&format!("\ndef {function}("));
    }
    let lines: Vec<&str> = file.text.lines().map(str::trim).collect();
    lines.iter().enumerate().any(|(at, line)| {
        let before = lines.get(at.saturating_sub(ATTRIBUTES_MAX)..at).unwrap_or_default();
        line.contains(&format!("fn {function}("))
            && before.iter().any(|line| line.starts_with("#[") && line.contains("test"))
    })
}

#[test]
fn a_row_without_a_test_or_with_one_that_is_not_there_is_seen() {
    let file = |path: &str, text: &str| File { path: path.to_owned(), text: text.to_owned() };
    let files = [
        file("a.rs", "#[test]\nfn holds() {}\n\n\n\n\nfn is_none() {}\n"),
        file("b.py", "\ndef test_it():\n"),
    ];
    let count = |row: &str| mistakes(row, &files).len();
    assert_eq!(count("| p | `a.rs::holds`, `b.py::test_it` |"), 0);
    for wrong in [
        "| p | |",
        "| p | `a.rs` |",
        "| p | `a.rs::is_none` |",
        "| p | `a.rs::hold` |",
        "| p | `c.rs::holds` |",
        "| p | `b.py::test_i` |",
        "| p | `a.rs::holds`, |",
        "| p |",
    ] {
        assert_eq!(count(wrong), 1, "{wrong}");
    }
    assert_eq!(rows("8\n\n| a | b |\n|---|---|\n| c | d |\n").collect::<Vec<_>>(), ["| c | d |"]);
}

const SECTIONS: usize = 9;
/// How far above a test its attribute stands.
const ATTRIBUTES_MAX: usize = 4;
