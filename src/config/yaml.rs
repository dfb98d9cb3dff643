//! YAML text as a tree of values, with the line of each.
//!
//! The values come from `serde_yaml`; `saphyr` reads the same text for the lines, and for
//! decimals as they were written: a price never goes through a float.

use std::fmt;

use saphyr::{LoadableYamlNode, MarkedYaml, YamlData};
use serde::de::{DeserializeSeed, EnumAccess, MapAccess, SeqAccess, VariantAccess, Visitor};
use serde_yaml::{Mapping, Value};

use super::mistake::{Found, KeyPath, Mistake, Step};

/// One file, read but not yet understood.
pub(super) struct Document<'t> {
    pub(super) value: Value,
    pub(super) lines: Lines<'t>,
}

impl<'t> Document<'t> {
    /// Text that is not YAML is the one mistake that hides all others.
    pub(super) fn read(text: &'t str, found: &mut Found) -> Result<Self, Mistake> {
        let top = KeyPath::default();
        let whole = Tolerant { path: &top, found };
        let value =
            whole.deserialize(serde_yaml::Deserializer::from_str(text)).map_err(|e| syntax(&e))?;
        let lines = Lines::of(text);
        let mut value = match value {
            Value::Mapping(_) => value,
            Value::Null => Value::Mapping(Mapping::new()),
            _ => {
                found.add(top.clone(), "a configuration is a mapping of keys to values");
                Value::Mapping(Mapping::new())
            }
        };
        decimals_as_written(&mut value, &top, &lines);
        Ok(Self { value, lines })
    }
}

/// `over` on top of `base`: mappings key by key, everything else whole. A key left empty, as when
/// all below it is commented out, changes no mapping and no list.
pub(super) fn merge(base: &mut Value, over: Value) {
    match (base, over) {
        (Value::Mapping(base), Value::Mapping(over)) => {
            for (key, value) in over {
                match base.get_mut(&key) {
                    Some(below) => merge(below, value),
                    None => drop(base.insert(key, value)),
                }
            }
        }
        (Value::Mapping(_) | Value::Sequence(_), Value::Null) => {}
        (base, over) => *base = over,
    }
}

pub(super) fn value_at<'v>(value: &'v mut Value, steps: &[Step]) -> Option<&'v mut Value> {
    steps.iter().try_fold(value, |value, step| match step {
        Step::Key(key) => value.get_mut(key.as_str()),
        Step::Index(index) => value.get_mut(*index),
    })
}

/// Where in the text the values stand.
pub(super) struct Lines<'t> {
    text: &'t str,
    /// Nothing when the two readers of YAML disagree: then mistakes have no line.
    root: Option<MarkedYaml<'t>>,
}

impl<'t> Lines<'t> {
    fn of(text: &'t str) -> Self {
        let documents = MarkedYaml::load_from_str(text).unwrap_or_default();
        Self { text, root: documents.into_iter().next() }
    }

    /// The line of a value: of its key, or of what encloses it when it is not in the file.
    pub(super) fn line_of(&self, path: &KeyPath) -> Option<usize> {
        let mut node = self.root.as_ref()?;
        let mut line = None;
        for step in path.steps() {
            let Some((key, value)) = child(node, step) else { break };
            line = Some(key.span.start.line());
            node = value;
        }
        line
    }

    /// The line where a key that stands there more than once is given last.
    pub(super) fn last_line_of(&self, path: &KeyPath) -> Option<usize> {
        let (Some(node), Some(Step::Key(key))) = (self.node(path), path.steps().last()) else {
            return self.line_of(path);
        };
        let begin = node.span.start.line();
        let lines: Vec<&str> = self.text.lines().take(begin).collect();
        let starts_with_key = |line: &&str| {
            let line = line.trim_start_matches([' ', '-', '"', '\'']);
            line.strip_prefix(key.as_str()).is_some_and(|rest| rest.contains(':'))
        };
        lines.iter().rposition(starts_with_key).map(|index| index + 1)
    }

    fn node(&self, path: &KeyPath) -> Option<&MarkedYaml<'t>> {
        let root = self.root.as_ref()?;
        path.steps().iter().try_fold(root, |node, step| Some(child(node, step)?.1))
    }

    fn text_of(&self, path: &KeyPath) -> Option<String> {
        let span = self.node(path)?.span;
        Some(self.text.chars().skip(span.start.index()).take(span.len()).collect())
    }
}

fn child<'n, 't>(
    node: &'n MarkedYaml<'t>,
    step: &Step,
) -> Option<(&'n MarkedYaml<'t>, &'n MarkedYaml<'t>)> {
    match (&node.data, step) {
        (YamlData::Mapping(mapping), Step::Key(wanted)) => {
            mapping.iter().find(|(key, _)| key.data.as_str() == Some(wanted))
        }
        (YamlData::Sequence(sequence), Step::Index(index)) => {
            sequence.get(*index).map(|value| (value, value))
        }
        (YamlData::Tagged(_, inner), _) => child(inner, step),
        _ => None,
    }
}

/// Replaces every float by the text it was written as, so that 0.15 stays fifteen hundredths.
///
/// Where the text cannot be found (the value is an alias of another), the shortest decimal that
/// names the float stands in: up to fifteen digits that is what was written, because no two such
/// decimals share a double.
fn decimals_as_written(value: &mut Value, path: &KeyPath, lines: &Lines<'_>) {
    match value {
        Value::Number(number) if number.is_f64() => {
            let same = |text: &String| text.parse().ok() == number.as_f64();
            let written = lines.text_of(path).filter(same).unwrap_or_else(|| {
                number.as_f64().map(|float| float.to_string()).unwrap_or_default()
            });
            *value = Value::String(written);
        }
        Value::Sequence(sequence) => {
            for (index, element) in sequence.iter_mut().enumerate() {
                decimals_as_written(element, &path.index(index), lines);
            }
        }
        Value::Mapping(mapping) => {
            for (key, value) in mapping.iter_mut() {
                decimals_as_written(value, &path.key(key.as_str().unwrap_or_default()), lines);
            }
        }
        _ => {}
    }
}

fn syntax(error: &serde_yaml::Error) -> Mistake {
    let line = error.location().map(|location| location.line());
    let text = error.to_string();
    let message = text.split(" at line ").next().unwrap_or_default();
    Mistake { line, path: String::new(), message: format!("not YAML: {message}") }
}

/// Reads any YAML as a [`Value`] and notes what a configuration does not have: a key given
/// twice (the first stands), a key that is not text, a tag.
struct Tolerant<'a> {
    path: &'a KeyPath,
    found: &'a mut Found,
}

impl<'de> DeserializeSeed<'de> for Tolerant<'_> {
    type Value = Value;

    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Tolerant<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("YAML")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_none<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i128<E>(self, value: i128) -> Result<Value, E> {
        Ok(value.to_string().into())
    }

    fn visit_u128<E>(self, value: u128) -> Result<Value, E> {
        Ok(value.to_string().into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Value, A::Error> {
        let mut read = Vec::new();
        loop {
            let path = self.path.index(read.len());
            let element = Tolerant { path: &path, found: self.found };
            match elements.next_element_seed(element)? {
                Some(element) => read.push(element),
                None => return Ok(Value::Sequence(read)),
            }
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let mut read = Mapping::new();
        while let Some(key) = entries.next_key::<Value>()? {
            let Value::String(key) = key else {
                let written = serde_yaml::to_string(&key).unwrap_or_default();
                let path = self.path.key(written.trim());
                self.found.add(path, "a key is text; put it in quotes");
                entries.next_value::<serde::de::IgnoredAny>()?;
                continue;
            };
            let path = self.path.key(&key);
            let value = entries.next_value_seed(Tolerant { path: &path, found: self.found })?;
            if read.contains_key(&key) {
                self.found.add(path, GIVEN_TWICE);
            } else {
                read.insert(key.into(), value);
            }
        }
        Ok(Value::Mapping(read))
    }

    fn visit_enum<A: EnumAccess<'de>>(self, tagged: A) -> Result<Value, A::Error> {
        let (tag, value) = tagged.variant::<String>()?;
        let path = self.path.clone();
        self.found.add(path, format!("the tag `!{tag}` means nothing here"));
        value.newtype_variant_seed(self)
    }
}

pub(super) const GIVEN_TWICE: &str = "given twice";
