//! What a client asks for, and with what it pays.

use nutgate_sandbox::Misbehaviour;
use serde_json::{Value, json};

use super::Key;

/// With what a request is paid.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Pay<'p> {
    /// A key, or whatever stands after `Bearer `.
    Bearer(&'p str),
    XCashu(&'p str),
    Nothing,
}

impl Pay<'_> {
    /// The header that pays.
    pub(crate) fn header(self) -> Option<(&'static str, String)> {
        match self {
            Self::Bearer(credential) => Some(("authorization", format!("Bearer {credential}"))),
            Self::XCashu(ecash) => Some(("x-cashu", ecash.to_owned())),
            Self::Nothing => None,
        }
    }

    /// The same as a line of a request's head.
    pub(crate) fn line(self) -> String {
        self.header().map(|(name, value)| format!("{name}: {value}\r\n")).unwrap_or_default()
    }
}

impl<'p> From<&'p Key> for Pay<'p> {
    fn from(key: &'p Key) -> Self {
        Self::Bearer(&key.0)
    }
}

/// The body of an unstreamed chat completion, whose prompt is 7 tokens long.
pub(crate) fn chat(model: &str) -> Value {
    json!({"model": model, "messages": [{"role": "user", "content": "What is a nut?"}]})
}

pub(crate) fn streamed(model: &str) -> Value {
    with(chat(model), json!({"stream": true}))
}

/// `body` with these members added or replaced.
pub(crate) fn with(mut body: Value, members: Value) -> Value {
    let members = members.as_object().unwrap().clone();
    body.as_object_mut().unwrap().extend(members);
    body
}

/// The model whose upstream does this.
pub(crate) fn model_of(misbehaviour: Misbehaviour) -> String {
    misbehaviour.model()
}
