//! House rules that a compiler does not check: who may name what, which words are ours, how
//! long a thing may be, and that what the documents say exists.
//!
//! Most of them are rows of the tables in [`rules`]. What clippy knows is in Cargo.toml and
//! .clippy.toml.

mod read;
mod repository;
mod rules;
mod wire;

use read::{after, functions, is_word, links, quoted_paths, section, until};
use repository::{File, files, parts, reached, root, text_of};
use rules::{LAYERS, LEFTOVERS, WORDS, broken};

#[test]
fn layers_are_kept() {
    report(&broken(LAYERS, &files()));
}

#[test]
fn words_are_those_of_the_glossary() {
    report(&broken(WORDS, &files()));
}

#[test]
fn nothing_is_left_over_or_skipped() {
    report(&broken(LEFTOVERS, &files()));
}

#[test]
fn a_line_a_function_and_a_file_fit_what_a_reader_holds() {
    let mut offences = Vec::new();
    for file in files().iter().filter(|file| file.is_rust()) {
        // A text literal is as long as what it says; breaking it up would not make it shorter.
        for (line, text) in file.lines().filter(|(_, text)| !text.contains('"')) {
            let columns = text.chars().count();
            if columns <= COLUMNS_MAX {
                continue;
            }
            offences.push(format!("{}:{line}: {columns} columns", file.path));
        }
        for (line, length) in functions(&file.text).filter(|(_, length)| *length > FN_LINES_MAX) {
            offences.push(format!("{}:{line}: a function of {length} lines", file.path));
        }
        let lines = file.lines().count();
        if lines > FILE_LINES_MAX {
            offences.push(format!("{}: {lines} lines", file.path));
        }
    }
    report(&offences);
}

#[test]
fn every_source_file_is_compiled_and_says_what_it_promises() {
    let files = files();
    let reached = reached(&files);
    let mut offences = Vec::new();
    for file in files.iter().filter(|file| file.is_rust()) {
        if !reached.contains(file.path.as_str()) {
            offences.push(format!("{}: no `mod` and no target leads here", file.path));
        }
        if !file.text.starts_with("//! ") && !file.is_unit_tests() {
            offences.push(format!("{}: begins without `//!`", file.path));
        }
    }
    report(&offences);
}

#[test]
fn the_readme_maps_every_part_and_names_only_what_exists() {
    let files = files();
    let readme = text_of(&files, "README.md");
    let mut offences = Vec::new();
    for part in parts(&files) {
        if !readme.contains(&format!("`{part}`")) {
            offences.push(format!("the code map has no `{part}`"));
        }
    }
    for named in links(readme).chain(quoted_paths(readme)) {
        if !root().join(named).exists() {
            offences.push(format!("{named} is named and is not there"));
        }
    }
    let makefile = text_of(&files, "Makefile");
    for target in after(readme, "`make ").map(|rest| until(rest, "` =")) {
        if !makefile.lines().any(|line| line.starts_with(&format!("{target}:"))) {
            offences.push(format!("`make {target}` is named and is no target"));
        }
    }
    report(&offences);
}

#[test]
fn every_invariant_names_the_test_that_would_see_it_break() {
    let files = files();
    let section = section(text_of(&files, "README.md"), "## Invariants");
    let numbered = |line: &&str| line.starts_with(|first: char| first.is_ascii_digit());
    let starts: Vec<usize> = section
        .lines()
        .enumerate()
        .filter_map(|(at, line)| numbered(&line).then_some(at))
        .collect();
    assert_eq!(starts.len(), INVARIANTS, "README lists the invariants as a numbered list");
    let lines: Vec<&str> = section.lines().collect();
    let ends = starts.iter().skip(1).copied().chain([lines.len()]);
    for (&start, end) in starts.iter().zip(ends) {
        let invariant = lines[start..end].join(" ");
        let proven = quoted_paths(&invariant)
            .any(|path| path.starts_with("tests/") || text_of(&files, path).contains("#[test]"));
        assert!(proven, "no test is named for: {invariant}");
    }
}

#[test]
fn the_changelog_has_this_version_and_says_what_to_do() {
    let files = files();
    let changelog = text_of(&files, "CHANGELOG.md");
    let manifest = text_of(&files, "Cargo.toml");
    let version = after(manifest, "\nversion = \"").map(|rest| until(rest, "\"")).next();
    let heading = format!("## {}", version.expect("the workspace has a version"));
    assert!(changelog.starts_with("# Changelog\n"));
    let latest = changelog.lines().find(|line| line.starts_with("## "));
    assert_eq!(latest.map(|line| until(line, ",")), Some(heading.as_str()));
}

#[test]
fn every_alert_has_its_section_in_the_runbook_and_no_section_is_left_over() {
    let files = files();
    let rules = text_of(&files, "deploy/prometheus/rules.yml");
    let mut alerts: Vec<&str> =
        after(rules, "- alert: ").map(|rest| until(rest, "\n").trim()).collect();
    let runbook = text_of(&files, "deploy/runbook.md");
    let mut sections: Vec<&str> =
        runbook.lines().filter_map(|line| line.strip_prefix("## ")).collect();
    alerts.sort_unstable();
    sections.sort_unstable();
    assert!(!alerts.is_empty());
    assert_eq!(alerts, sections);
}

#[test]
fn every_configuration_key_is_explained_where_it_stands() {
    let files = files();
    let Some(conf) = files.iter().find(|file| file.path == "conf/nutgate.yaml") else {
        panic!("conf/nutgate.yaml is the documentation of the configuration");
    };
    let mut explained = false;
    let mut offences = Vec::new();
    for (line, text) in conf.lines() {
        let trimmed = text.trim_start_matches([' ', '-']);
        // A section explains itself by its keys.
        let is_key = trimmed
            .split_once(':')
            .is_some_and(|(key, value)| is_word(key) && !value.trim().is_empty());
        if is_key && !explained && !text.contains(" # ") {
            offences.push(format!("{}:{line}: nothing explains `{trimmed}`", conf.path));
        }
        // A comment speaks for the keys that follow it without a gap.
        explained = trimmed.starts_with('#') || (explained && !trimmed.is_empty());
    }
    report(&offences);
}

#[test]
fn a_broken_rule_is_seen_and_a_mention_is_not() {
    let file = |text: &str| File { path: "src/api/x.rs".to_owned(), text: text.to_owned() };
    let broken =
        |text: &str| broken(LAYERS, &[file(text)]).len() + broken(WORDS, &[file(text)]).len();
    assert_eq!(broken("use pingora_proxy::Session;\n"), 1);
    assert_eq!(broken("let token = 1;\n"), 1);
    assert_eq!(broken("fn get_it() {}\n"), 1);
    assert_eq!(broken("// pingora, and \"a token\n/* cdk */\n"), 0);
    assert_eq!(
        broken("let x = \"token \\\" pingora\"; let y = 'p'; let q = '\"'; f::<'_>(token_of);"),
        0
    );
    assert_eq!(broken("let x = r#\"token \" cdk\"#;\n"), 0);
    assert_eq!(broken("#[cfg(test)]\nmod tests {\n    use cdk::Amount;\n}\n"), 0);
    assert_eq!(
        functions("fn a() {\n    1\n}\n\n    fn b() {\n    }\n").collect::<Vec<_>>(),
        [(1, 3), (5, 2)]
    );
}

#[track_caller]
fn report(offences: &[String]) {
    assert!(offences.is_empty(), "\n{}\n", offences.join("\n"));
}

const COLUMNS_MAX: usize = 100;
const FN_LINES_MAX: usize = 70;
const FILE_LINES_MAX: usize = 500;
const INVARIANTS: usize = 10;
