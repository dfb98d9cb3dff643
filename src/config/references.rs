//! What a configuration refers to outside itself: `${NAME}` and `file:path`.

use std::collections::HashMap;
use std::io;
use std::path::Path;

use serde_yaml::Value;

use super::mistake::{Found, KeyPath, Step};

/// The machine, as far as a configuration can see it.
pub trait Outside {
    fn variable(&self, name: &str) -> Option<String>;
    fn file(&self, path: &Path) -> io::Result<String>;
    /// Whether a directory is there or could be made there, else why not.
    fn room_for_directory(&self, path: &Path) -> Result<(), String>;
}

/// This machine.
#[derive(Clone, Copy, Debug, Default)]
pub struct Machine;

impl Outside for Machine {
    fn variable(&self, name: &str) -> Option<String> {
        std::env::var(name).ok()
    }

    fn file(&self, path: &Path) -> io::Result<String> {
        std::fs::read_to_string(path)
    }

    fn room_for_directory(&self, path: &Path) -> Result<(), String> {
        let here = Path::new(".");
        for existing in path.ancestors() {
            let existing = if existing.as_os_str().is_empty() { here } else { existing };
            match std::fs::metadata(existing) {
                Ok(found) if !found.is_dir() => {
                    return Err(format!("{} is not a directory", existing.display()));
                }
                Ok(found) if found.permissions().readonly() => {
                    return Err(format!("{} is read-only", existing.display()));
                }
                Ok(_) => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(format!("{}: {error}", existing.display())),
            }
        }
        Ok(())
    }
}

/// Replaces every reference in a tree. One that leads nowhere is a mistake that names the key and
/// the variable or file; a file is read once, and its trailing newline is not part of the secret.
pub(super) fn resolve(value: &mut Value, outside: &dyn Outside, found: &mut Found) {
    let mut resolver = Resolver { outside, found, files: HashMap::new() };
    resolver.walk(value, &KeyPath::default());
}

struct Resolver<'a> {
    outside: &'a dyn Outside,
    found: &'a mut Found,
    files: HashMap<String, Result<String, String>>,
}

impl Resolver<'_> {
    fn walk(&mut self, value: &mut Value, path: &KeyPath) {
        match value {
            Value::String(text) => self.text(text, path),
            Value::Sequence(sequence) => {
                for (index, element) in sequence.iter_mut().enumerate() {
                    self.walk(element, &path.index(index));
                }
            }
            Value::Mapping(mapping) => {
                for (key, value) in mapping.iter_mut() {
                    self.walk(value, &path.key(key.as_str().unwrap_or_default()));
                }
            }
            _ => {}
        }
    }

    fn text(&mut self, text: &mut String, path: &KeyPath) {
        let written = text.clone();
        match self.with_variables(&written) {
            Ok(replaced) => *text = replaced,
            Err(problem) => {
                self.found.add(path.clone(), problem);
                return;
            }
        }
        if !is_secret(path) {
            return;
        }
        // Decided by what was written, not by what a variable holds.
        if written.starts_with(FILE) {
            let file = text.strip_prefix(FILE).unwrap_or_default().to_owned();
            match self.file(&file) {
                Ok(secret) => *text = secret,
                Err(problem) => {
                    self.found.add(path.clone(), problem);
                    return;
                }
            }
        }
        if text.is_empty() && *text != written {
            self.found.add(path.clone(), format!("`{written}` is empty"));
        }
    }

    fn with_variables(&self, text: &str) -> Result<String, String> {
        let mut replaced = String::with_capacity(text.len());
        let mut rest = text;
        while let Some(at) = rest.find("${") {
            let (before, reference) = rest.split_at(at);
            if let Some(before) = before.strip_suffix('$') {
                replaced.push_str(before);
                replaced.push_str("${");
                rest = &reference["${".len()..];
                continue;
            }
            let (name, after) =
                reference["${".len()..].split_once('}').ok_or("`${` without a `}`")?;
            let value = self
                .outside
                .variable(name)
                .ok_or_else(|| format!("the environment variable `{name}` is not set"))?;
            replaced.push_str(before);
            replaced.push_str(&value);
            rest = after;
        }
        replaced.push_str(rest);
        Ok(replaced)
    }

    fn file(&mut self, path: &str) -> Result<String, String> {
        let read = || match self.outside.file(Path::new(path)) {
            Ok(text) => Ok(text.trim_end_matches(['\n', '\r']).to_owned()),
            Err(error) => Err(format!("the file `{path}` cannot be read: {error}")),
        };
        self.files.entry(path.to_owned()).or_insert_with(read).clone()
    }
}

fn is_secret(path: &KeyPath) -> bool {
    match path.steps() {
        // A header may show a credential, whatever its name is.
        [Step::Key(list), Step::Index(_), Step::Key(key), Step::Key(_)] => {
            list == "upstreams" && key == "headers"
        }
        [.., Step::Key(key)] => SECRETS.contains(&key.as_str()),
        _ => false,
    }
}

const FILE: &str = "file:";

/// The keys whose values are secrets, wherever they stand.
const SECRETS: [&str; 3] = ["api_key", "redis", "postgres"];
