//! Which paths are sold. The list is closed: what is not in it is never forwarded, because
//! nothing would meter it.

/// A path that is sold, whatever name the client called it by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Route {
    ChatCompletions,
    Responses,
    Embeddings,
    Completions,
    ImageGenerations,
    ImageEdits,
    Transcriptions,
    Translations,
    Speech,
    /// Anthropic's.
    Messages,
    Moderations,
    Rerank,
}

impl Route {
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

/// Compares the whole path, byte for byte. No case folding, no trailing slash, no dot segments
/// and no percent-decoding: an upstream might read such a path differently than we did.
pub fn billable(path: &str) -> Option<Route> {
    match path {
        "/v1/chat/completions" | "/chat/completions" => Some(Route::ChatCompletions),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_route_and_its_alias_are_the_same() {
        for path in ["/v1/chat/completions", "/chat/completions"] {
            let route = billable(path);
            assert_eq!(route, Some(Route::ChatCompletions));
            assert_eq!(route.map(Route::upstream_path), Some("/chat/completions"));
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
            "/v1/completions",
            "/v1/chat/completions\0",
        ] {
            assert_eq!(billable(path), None, "{path:?}");
        }
    }

    proptest! {
        #[test]
        fn nothing_outside_the_list_is_sold(path in "/(v1/)?[a-z/.%]{0,30}") {
            let listed = path == "/v1/chat/completions" || path == "/chat/completions";
            prop_assert_eq!(billable(&path).is_some(), listed);
        }
    }
}
