//! The files of this repository, and how they hang together.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use crate::read::{after, folder, is_word, until};

pub(crate) struct File {
    /// From the repository's root, with `/`.
    pub(crate) path: String,
    pub(crate) text: String,
}

impl File {
    pub(crate) fn is_rust(&self) -> bool {
        self.path.ends_with(".rs")
    }

    /// Unit tests in a file of their own, beside the code.
    pub(crate) fn is_unit_tests(&self) -> bool {
        self.path.ends_with("/tests.rs") || self.path.ends_with("_tests.rs")
    }

    pub(crate) fn lines(&self) -> impl Iterator<Item = (usize, &str)> {
        (1..).zip(self.text.lines())
    }
}

/// Every text file of the repository, in order of path.
pub(crate) fn files() -> Vec<File> {
    let mut files = Vec::new();
    let mut open = vec![root()];
    while let Some(folder) = open.pop() {
        for entry in fs::read_dir(&folder).expect("the repository is readable") {
            let path = entry.expect("the repository is readable").path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if NOT_OURS.contains(&name.as_str()) {
                continue;
            }
            if path.is_dir() {
                open.push(path);
            } else if let Ok(text) = fs::read_to_string(&path) {
                let path = path.strip_prefix(root()).expect("it was found below the root");
                files.push(File { path: path.to_string_lossy().replace('\\', "/"), text });
            }
        }
    }
    files.sort_by(|one, other| one.path.cmp(&other.path));
    files
}

pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).to_path_buf()
}

pub(crate) fn text_of<'f>(files: &'f [File], path: &str) -> &'f str {
    let file = files.iter().find(|file| file.path == path);
    file.map_or_else(|| panic!("{path} is missing"), |file| &file.text)
}

/// Every file that a target or a `mod` leads to.
pub(crate) fn reached(files: &[File]) -> BTreeSet<&str> {
    let roots: Vec<String> = files.iter().flat_map(|file| targets(file, files)).collect();
    let mut open = roots.clone();
    let mut reached = BTreeSet::new();
    while let Some(path) = open.pop() {
        let Some(file) = files.iter().find(|file| file.path == path) else { continue };
        if !reached.insert(file.path.as_str()) {
            continue;
        }
        // A root and a mod.rs have their modules beside them, the others in a folder of their name.
        let beside = roots.contains(&path) || path.ends_with("/mod.rs");
        let home = if beside { folder(&path) } else { path.trim_end_matches(".rs") };
        let mut elsewhere = None;
        for line in file.text.lines().map(str::trim_start) {
            let module = line.split_once("mod ").and_then(|(before, name)| {
                let declares = before.is_empty() || before.starts_with("pub");
                name.strip_suffix(';').filter(|name| declares && is_word(name))
            });
            match (module, elsewhere.take()) {
                (Some(_), Some(path)) => open.push(format!("{}/{path}", folder(&file.path))),
                (Some(name), None) => {
                    open.extend([format!("{home}/{name}.rs"), format!("{home}/{name}/mod.rs")]);
                }
                (None, _) => {
                    elsewhere = after(line, "#[path = \"").map(|rest| until(rest, "\"")).next();
                }
            }
        }
    }
    reached
}

/// The root files of a manifest's targets, by Cargo's conventions and by `path = …`.
fn targets(manifest: &File, files: &[File]) -> Vec<String> {
    let Some(home) = manifest.path.strip_suffix("Cargo.toml") else { return Vec::new() };
    let text = &manifest.text;
    let mut found: Vec<String> =
        ["src/lib.rs", "src/main.rs", "build.rs"].map(|path| format!("{home}{path}")).into();
    found.extend(after(text, "\npath = \"").map(|rest| format!("{home}{}", until(rest, "\""))));
    let conventional = |path: &&str| {
        ["src/bin", "examples", "benches"].contains(&folder(path))
            || folder(path) == "tests" && !text.contains("\nautotests = false")
    };
    let own = files.iter().filter_map(|file| file.path.strip_prefix(home));
    found.extend(own.filter(conventional).map(|path| format!("{home}{path}")));
    found
}

/// What the code map has to name: each thing in src, and each folder at the top.
pub(crate) fn parts(files: &[File]) -> BTreeSet<String> {
    let part = |file: &File| {
        let mut names = file.path.split('/');
        match (names.next()?, names.next(), names.next()) {
            ("src", Some(module), None) => Some(format!("src/{module}")),
            ("src", Some(module), Some(_)) => Some(format!("src/{module}/")),
            (top, Some(_), _) if !top.starts_with('.') => Some(format!("{top}/")),
            _ => None,
        }
    };
    files.iter().filter_map(part).filter(|part| part != "src/lib.rs").collect()
}

/// Folders whose content is made by tools.
const NOT_OURS: &[&str] = &[".git", "target", "node_modules", "__pycache__", ".pytest_cache"];
