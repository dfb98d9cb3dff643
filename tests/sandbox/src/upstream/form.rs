//! Just enough multipart/form-data to read a question and its files.

use bytes::Bytes;
use memchr::memmem;
use serde_json::{Map, Value};

use super::Seen;

#[derive(Default)]
pub(super) struct Form {
    /// As text; the last one where a name comes twice.
    pub(super) fields: Map<String, Value>,
    /// In their order, whatever they are called.
    pub(super) files: Vec<Bytes>,
}

/// Nothing when the body is not what its content type says, or says nothing.
pub(super) fn read(seen: &Seen) -> Option<Form> {
    let (kind, parameters) = seen.header("content-type")?.split_once(';')?;
    if !kind.eq_ignore_ascii_case("multipart/form-data") {
        return None;
    }
    let boundary = format!("--{}", parameter(parameters, "boundary")?);
    let starts: Vec<usize> = memmem::find_iter(&seen.body, &boundary).collect();
    let mut form = Form::default();
    for (start, end) in starts.iter().zip(starts.iter().skip(1)) {
        let part = seen.body.slice(start + boundary.len()..*end);
        read_part(&part, &mut form)?;
    }
    let rest = seen.body.slice(starts.last()? + boundary.len()..);
    rest.starts_with(b"--").then_some(form)
}

/// What stands between two boundaries, with the line breaks that belong to them.
fn read_part(part: &Bytes, form: &mut Form) -> Option<()> {
    let part = part.slice_ref(part.strip_prefix(b"\r\n")?.strip_suffix(b"\r\n")?);
    let head_length = memmem::find(&part, b"\r\n\r\n")?;
    let content = part.slice(head_length + 4..);
    let head = str::from_utf8(part.get(..head_length)?).ok()?;
    let (_, disposition) = head
        .lines()
        .filter_map(|line| line.split_once(':'))
        .find(|(name, _)| name.eq_ignore_ascii_case("content-disposition"))?;
    let name = parameter(disposition, "name")?;
    if parameter(disposition, "filename").is_some() {
        form.files.push(content);
    } else {
        let text = str::from_utf8(&content).ok()?;
        form.fields.insert(name.to_owned(), text.into());
    }
    Some(())
}

fn parameter<'t>(text: &'t str, name: &str) -> Option<&'t str> {
    let pairs = text.split(';').filter_map(|pair| pair.trim().split_once('='));
    let (_, value) = { pairs }.find(|(found, _)| found.eq_ignore_ascii_case(name))?;
    Some(value.trim_matches('"'))
}
