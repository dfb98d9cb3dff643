//! Which paths are sold. The list is closed: what is not in it is never forwarded, because
//! nothing would meter it.

/// A path that is sold, whatever name the client called it by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Route {
    ChatCompletions,
}

impl Route {
    /// The path below the upstream's base URL.
    pub fn upstream_path(self) -> &'static str {
        match self {
            Self::ChatCompletions => "/chat/completions",
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
