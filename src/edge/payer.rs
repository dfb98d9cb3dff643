//! Who pays, and the body of what they ask: what is read of a request before anything is decided.

use bytes::{Bytes, BytesMut};
use lua_free_filters::{Credential, CredentialRefusal, credential};
use pingora::proxy::Session;

use crate::api;
use crate::error::Refusal;
use crate::ids::{AccountId, ApiKey};
use crate::once::Keyed;
use crate::till::CashuToken;

/// Who pays.
#[derive(Debug)]
pub(super) struct Payer {
    pub(super) account: AccountId,
    pub(super) key: ApiKey,
    /// Of a request that is to be made once; known when its body is.
    pub(super) keyed: Option<Keyed>,
    /// What can be redeemed if the account does not exist yet.
    pub(super) cashu_token: Option<CashuToken>,
    /// Shown in `X-Cashu`: this request is paid by it, and what is left goes back.
    pub(super) per_request: bool,
}

/// Reads who pays from the head.
pub(super) fn payer(session: &Session, missing_status: u16) -> Result<Payer, Refusal> {
    let headers = &session.req_header().headers;
    let text = |name: &str| match headers.get(name).map(|value| value.to_str()) {
        None => Ok(None),
        Some(Ok(text)) => Ok(Some(text)),
        Some(Err(_)) => Err(CredentialRefusal::Malformed),
    };
    let shown = text("x-cashu")
        .and_then(|x_cashu| credential(x_cashu, text("authorization")?, text("x-api-key")?))
        .map_err(|why| api::credential_refusal(why, missing_status))?;
    Ok(match shown {
        Credential::ApiKey(key) => {
            let key = ApiKey::presented(key);
            Payer {
                account: key.account(),
                key,
                keyed: None,
                cashu_token: None,
                per_request: false,
            }
        }
        Credential::CashuBearer(text) => by_token(text, false),
        Credential::Cashu(text) => by_token(text, true),
    })
}

fn by_token(text: &str, per_request: bool) -> Payer {
    let key = ApiKey::of_cashu_token(text);
    Payer {
        account: key.account(),
        key,
        keyed: None,
        cashu_token: Some(CashuToken::new(text)),
        per_request,
    }
}

/// Reads a request's body, up to `bytes_max`.
///
/// # Errors
/// Too large: 413, and the connection is closed after the answer. Broken off: the client went.
pub(super) async fn read_body(
    session: &mut Session,
    bytes_max: usize,
) -> pingora::Result<Result<Bytes, Refusal>> {
    let announced = session
        .req_header()
        .headers
        .get(http::header::CONTENT_LENGTH)
        .and_then(|value| value.to_str().ok()?.parse::<usize>().ok());
    if announced.is_some_and(|bytes| bytes > bytes_max) {
        return Ok(Err(api::body_too_large(bytes_max)));
    }
    if session.req_header().headers.contains_key(http::header::EXPECT) {
        session.write_continue_response().await?;
    }
    let mut body = BytesMut::with_capacity(announced.unwrap_or(0));
    while let Some(chunk) = session.read_request_body().await? {
        if body.len().saturating_add(chunk.len()) > bytes_max {
            return Ok(Err(api::body_too_large(bytes_max)));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(Ok(body.freeze()))
}
