//! Which paths are sold. The list is closed: what is not in it is never forwarded, because
//! nothing would meter it.

/// A path that is sold, whatever name the client called it by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Route {
    /// A conversation gone on with.
    ChatCompletions,
    /// OpenAI's later protocol for the same, with tools that it runs itself.
    Responses,
    /// Texts as vectors.
    Embeddings,
    /// A text gone on with.
    Completions,
    /// Images made from a text.
    ImageGenerations,
    /// Images made from images and a text; JSON or a form.
    ImageEdits,
    /// Audio written down in its language; a form.
    Transcriptions,
    /// Audio written down in English; a form.
    Translations,
    /// A text spoken.
    Speech,
    /// Anthropic's protocol for conversations.
    Messages,
    /// Whether texts and images are harmful.
    Moderations,
    /// Documents in the order of what they say about a query.
    Rerank,
}

impl Route {
    /// Every route, each once.
    pub const ALL: [Self; 12] = [
        Self::ChatCompletions,
        Self::Responses,
        Self::Embeddings,
        Self::Completions,
        Self::ImageGenerations,
        Self::ImageEdits,
        Self::Transcriptions,
        Self::Translations,
        Self::Speech,
        Self::Messages,
        Self::Moderations,
        Self::Rerank,
    ];

    /// Whether a model writes its answers, be it text, images or speech: then there is output to
    /// be paid for. Vectors, scores and ranks are none.
    pub const fn has_output(self) -> bool {
        !matches!(self, Self::Embeddings | Self::Moderations | Self::Rerank)
    }

    /// Whether its answers are text whose length a request may limit.
    pub const fn has_output_limit(self) -> bool {
        self.can_be_cut() || matches!(self, Self::Responses | Self::Messages)
    }

    /// Whether a stream of it can be ended before its end in its own words, see
    /// [`crate::EventTap::closing`].
    pub const fn can_be_cut(self) -> bool {
        matches!(self, Self::ChatCompletions | Self::Completions)
    }

    /// What an output limit is called by the protocol itself. A server need not know other names.
    pub const fn limit_fields(self) -> &'static [&'static str] {
        match self {
            Self::ChatCompletions => &["max_tokens", "max_completion_tokens"],
            Self::Completions | Self::Messages => &["max_tokens"],
            Self::Responses => &["max_output_tokens"],
            Self::Embeddings
            | Self::ImageGenerations
            | Self::ImageEdits
            | Self::Transcriptions
            | Self::Translations
            | Self::Speech
            | Self::Moderations
            | Self::Rerank => &[],
        }
    }

    /// The path below the upstream's base URL.
    pub const fn upstream_path(self) -> &'static str {
        match self {
            Self::ChatCompletions => "/chat/completions",
            Self::Responses => "/responses",
            Self::Embeddings => "/embeddings",
            Self::Completions => "/completions",
            Self::ImageGenerations => "/images/generations",
            Self::ImageEdits => "/images/edits",
            Self::Transcriptions => "/audio/transcriptions",
            Self::Translations => "/audio/translations",
            Self::Speech => "/audio/speech",
            Self::Messages => "/messages",
            Self::Moderations => "/moderations",
            Self::Rerank => "/rerank",
        }
    }
}

/// The route that a path names, with or without `/v1` in front.
///
/// Compares the whole path, byte for byte. No case folding, no trailing slash, no dot segments
/// and no percent-decoding: an upstream might read such a path differently than we did.
pub fn billable(path: &str) -> Option<Route> {
    let below = path.strip_prefix("/v1").unwrap_or(path);
    Route::ALL.into_iter().find(|route| route.upstream_path() == below)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PATHS: [(&str, Route); 12] = [
        ("/chat/completions", Route::ChatCompletions),
        ("/responses", Route::Responses),
        ("/embeddings", Route::Embeddings),
        ("/completions", Route::Completions),
        ("/images/generations", Route::ImageGenerations),
        ("/images/edits", Route::ImageEdits),
        ("/audio/transcriptions", Route::Transcriptions),
        ("/audio/translations", Route::Translations),
        ("/audio/speech", Route::Speech),
        ("/messages", Route::Messages),
        ("/moderations", Route::Moderations),
        ("/rerank", Route::Rerank),
    ];

    #[test]
    fn a_route_and_its_alias_are_the_same() {
        for (path, route) in PATHS {
            assert_eq!(billable(path), Some(route), "{path}");
            assert_eq!(billable(&format!("/v1{path}")), Some(route), "/v1{path}");
            assert_eq!(route.upstream_path(), path);
        }
        assert_eq!(PATHS.map(|(_, route)| route), Route::ALL);
    }

    #[test]
    fn vectors_scores_and_ranks_are_no_output() {
        let without = [Route::Embeddings, Route::Moderations, Route::Rerank];
        for route in Route::ALL {
            assert_eq!(route.has_output(), !without.contains(&route), "{route:?}");
            assert!(route.has_output() || !route.has_output_limit());
        }
    }

    #[test]
    fn what_only_looks_like_a_route_is_none() {
        for path in [
            "",
            "/",
            "/v1/chat/completions/",
            "/v1/chat/completions?x=1",
            "/v1//chat/completions",
            "//chat/completions",
            "/V1/chat/completions",
            "/v1/chat/Completions",
            "/v1/chat%2Fcompletions",
            "/v1/./chat/completions",
            "/v1/x/../chat/completions",
            "/v1/v1/chat/completions",
            "v1/chat/completions",
            "/v1",
            "/v1/",
            "/v2/messages",
            "/v1/messages/count_tokens",
            "/v1/messages/batches",
            "/v1/responses/resp_1",
            "/v1/responses/",
            "/v1/images/variations",
            "/v1/images",
            "/v1/audio/transcriptions#x",
            "/v1/audio\\speech",
            "/v1responses",
            "v1/responses",
            "/v1/rerank;x",
            "/v2/rerank",
            "/v1/chat/completions\0",
        ] {
            assert_eq!(billable(path), None, "{path:?}");
        }
    }

    proptest! {
        #[test]
        fn nothing_outside_the_list_is_sold(path in "/(v1/)?[a-z/.%]{0,30}") {
            let listed = PATHS.iter().any(|(below, _)| path == *below || path == format!("/v1{below}"));
            prop_assert_eq!(billable(&path).is_some(), listed);
        }
    }
}
