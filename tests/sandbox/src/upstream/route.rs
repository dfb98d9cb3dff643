//! What is sold upstream, by its path below the base URL.

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Route {
    Chat,
    Completions,
    Responses,
    Messages,
    Embeddings,
    ImageGenerations,
    ImageEdits,
    Transcriptions,
    Translations,
    Speech,
    Moderations,
    Rerank,
}

/// How a route words its errors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Dialect {
    OpenAi,
    Anthropic,
}

impl Route {
    pub(super) fn of(path: &str) -> Option<Self> {
        Some(match path {
            "/chat/completions" => Self::Chat,
            "/completions" => Self::Completions,
            "/responses" => Self::Responses,
            "/messages" => Self::Messages,
            "/embeddings" => Self::Embeddings,
            "/images/generations" => Self::ImageGenerations,
            "/images/edits" => Self::ImageEdits,
            "/audio/transcriptions" => Self::Transcriptions,
            "/audio/translations" => Self::Translations,
            "/audio/speech" => Self::Speech,
            "/moderations" => Self::Moderations,
            "/rerank" => Self::Rerank,
            _ => return None,
        })
    }

    pub(super) fn dialect(self) -> Dialect {
        if self == Self::Messages { Dialect::Anthropic } else { Dialect::OpenAi }
    }

    /// Whether files come with it, so that its body is a form instead of JSON.
    pub(super) fn is_form(self) -> bool {
        matches!(self, Self::ImageEdits | Self::Transcriptions | Self::Translations)
    }
}
