//! One mint that configuration names: its keysets, and what its answers allow to conclude.
//!
//! Every call has a connection of its own, taken from the idle ones: cdk's client sends one
//! request per connection at a time, so a mint that holds one answer would hold them all.
//! Reading calls are bounded by `mint_timeout`. A swap is not cancelled (a mint may leave its
//! inputs pending for ever); callers bound their waiting instead.

use std::collections::HashMap;
use std::future::Future;
use std::io;
use std::str::FromStr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use cdk::HttpClient;
use cdk::mint_url::MintUrl;
use cdk::nuts::{
    BlindSignature, BlindedMessage, CheckStateRequest, CurrencyUnit, Id, KeySet, KeySetInfo,
    Proofs, PublicKey, RestoreRequest, State, SwapRequest,
};
use cdk::wallet::MintConnector;

use super::WalletError;
use crate::clock::Stopwatch;
use crate::config;
use crate::money::{MSAT_PER_SAT, Msat};

/// A unit that we take, and what one of it is worth.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unit {
    pub name: String,
    pub size: Msat,
}

impl Unit {
    pub fn named(name: &str) -> Option<Self> {
        let msat = match name {
            "sat" => MSAT_PER_SAT,
            "msat" => 1,
            _ => return None,
        };
        Some(Self { name: name.to_owned(), size: Msat::new(msat)? })
    }

    /// So many of this unit; nothing when that is more than an [`Msat`] can be.
    pub(super) fn msat(&self, count: u64) -> Option<Msat> {
        count.checked_mul(self.size.get()).and_then(Msat::new)
    }

    /// How many whole units an amount is.
    pub(super) fn count(&self, amount: Msat) -> u64 {
        amount.get() / self.size.get()
    }
}

/// What a mint's failure to do as asked allows to conclude.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum MintError {
    /// There was no connection: the mint has not seen the request.
    Unreachable,
    /// The mint did not look at the request.
    RateLimited,
    /// The mint says that an input is spent; perhaps by this very request, sent before.
    Spent,
    KeysetInactive,
    /// The mint has signed one of the outputs before; for this swap, or in another life of
    /// this database.
    OutputsUsed,
    /// The mint refused and changed nothing. The text is ours and safe to show.
    Refused(&'static str),
    /// No answer, or none that says what was done.
    Ambiguous,
}

/// The mint's view of a set of proofs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Spending {
    Unspent,
    Pending,
    Spent,
}

pub(super) struct Mint {
    pub(super) url: MintUrl,
    pub(super) units: Vec<Unit>,
    pub(super) timeout: Duration,
    idle: Mutex<Vec<HttpClient>>,
    known: Mutex<Known>,
    /// One refresh at a time; the others wait for its result.
    refreshing: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct Known {
    infos: Option<Arc<Vec<KeySetInfo>>>,
    keys: HashMap<Id, Arc<KeySet>>,
    /// Refreshes so far, and how the last one failed.
    refreshes: u64,
    failed: Option<MintError>,
    /// Refreshes that tokens of unknown keysets may cause; regained with time.
    refreshes_left: u32,
    regained: Option<Stopwatch>,
}

type Answered = Result<Arc<Vec<KeySetInfo>>, MintError>;

impl Mint {
    pub(super) fn new(mint: &config::Mint, timeout: Duration) -> Result<Self, WalletError> {
        let url = normalise(&mint.url)
            .ok_or_else(|| WalletError::Config(format!("'{}' is not a mint's URL", mint.url)))?;
        let unknown = |name: &String| WalletError::Config(format!("unit '{name}' is unknown"));
        let units: Result<Vec<_>, _> =
            mint.units.iter().map(|name| Unit::named(name).ok_or_else(|| unknown(name))).collect();
        Ok(Self {
            url,
            units: units?,
            timeout,
            idle: Mutex::default(),
            known: Mutex::new(Known { refreshes_left: REFRESHES_MAX, ..Known::default() }),
            refreshing: tokio::sync::Mutex::default(),
        })
    }

    pub(super) fn unit(&self, currency: &CurrencyUnit) -> Option<&Unit> {
        let name = currency.to_string();
        self.units.iter().find(|unit| unit.name == name)
    }

    /// The mint's keysets; asked for again when those known are not `enough`.
    pub(super) async fn keysets(
        &self,
        enough: impl Fn(&[KeySetInfo]) -> bool,
    ) -> Result<Arc<Vec<KeySetInfo>>, MintError> {
        let before = {
            let known = self.lock();
            match &known.infos {
                Some(infos) if enough(infos) => return Ok(infos.clone()),
                _ => known.refreshes,
            }
        };
        let _turn = self.refreshing.lock().await;
        if let Some(answered) = self.lock().answered_since(before) {
            return answered;
        }
        self.fetch_keysets().await
    }

    /// Asks for the keysets whatever is known.
    pub(super) async fn refresh(&self) -> Result<Arc<Vec<KeySetInfo>>, MintError> {
        let _turn = self.refreshing.lock().await;
        self.fetch_keysets().await
    }

    async fn fetch_keysets(&self) -> Result<Arc<Vec<KeySetInfo>>, MintError> {
        let answer = self.read(|client| async move { client.get_mint_keysets().await }).await;
        let mut known = self.lock();
        known.refreshes = known.refreshes.wrapping_add(1);
        known.failed = answer.as_ref().err().cloned();
        let infos = Arc::new(answer?.keysets);
        known.infos = Some(infos.clone());
        Ok(infos)
    }

    /// What is known of the keysets now, without asking.
    pub(super) fn keysets_known(&self) -> Option<Arc<Vec<KeySetInfo>>> {
        self.lock().infos.clone()
    }

    /// The cheapest keyset that the mint signs with in this unit.
    pub(super) async fn active(&self, unit: &Unit) -> Result<Arc<KeySet>, MintError> {
        let usable = |info: &&KeySetInfo| info.active && info.unit.to_string() == unit.name;
        let infos = self.keysets(|infos| infos.iter().any(|info| usable(&info))).await?;
        let cheapest = infos.iter().filter(usable).min_by_key(|info| info.input_fee_ppk);
        match cheapest {
            Some(info) => self.keys(info.id).await,
            None => Err(MintError::Refused("the mint has no active keyset of this unit")),
        }
    }

    /// The public keys of a keyset. They never change, and its id is their hash.
    pub(super) async fn keys(&self, id: Id) -> Result<Arc<KeySet>, MintError> {
        if let Some(keys) = self.lock().keys.get(&id) {
            return Ok(keys.clone());
        }
        let ask = move |client: HttpClient| async move { client.get_mint_keyset(id).await };
        let keyset = self.read(ask).await?;
        if keyset.id != id || keyset.verify_id().is_err() {
            return Err(MintError::Refused("the mint's keyset does not match its id"));
        }
        let keyset = Arc::new(keyset);
        self.lock().keys.insert(id, keyset.clone());
        Ok(keyset)
    }

    pub(super) async fn swap(
        &self,
        inputs: Proofs,
        outputs: Vec<BlindedMessage>,
    ) -> Result<Vec<BlindSignature>, MintError> {
        let request = SwapRequest::new(inputs, outputs);
        let ask = |client: HttpClient| async move { client.post_swap(request).await };
        let answer = match tokio::time::timeout(SWAP_MAX, self.call(ask)).await {
            Ok(answer) => answer,
            Err(_) => Err(MintError::Ambiguous),
        };
        if matches!(&answer, Err(error) if *error == OTHER_FEE) {
            self.lock().infos = None;
        }
        answer.map(|answer| answer.signatures)
    }

    /// The mint's signatures on exactly these outputs, in their order (NUT-09); `None` when it
    /// has not signed every one of them.
    pub(super) async fn restore(
        &self,
        outputs: Vec<BlindedMessage>,
    ) -> Result<Option<Vec<BlindSignature>>, MintError> {
        let request = RestoreRequest { outputs: outputs.clone() };
        let ask = |client: HttpClient| async move { client.post_restore(request).await };
        let answer = self.read(ask).await?;
        let signed: HashMap<PublicKey, BlindSignature> = answer
            .outputs
            .into_iter()
            .map(|output| output.blinded_secret)
            .zip(answer.signatures)
            .collect();
        Ok(outputs.iter().map(|output| signed.get(&output.blinded_secret).cloned()).collect())
    }

    /// Whether any of these proofs is pending or spent (NUT-07).
    pub(super) async fn spending(&self, ys: Vec<PublicKey>) -> Result<Spending, MintError> {
        let states = self.states(ys).await?;
        let has = |state: State| states.contains(&state);
        Ok(if has(State::Spent) {
            Spending::Spent
        } else if states.iter().all(|state| *state == State::Unspent) {
            Spending::Unspent
        } else {
            Spending::Pending
        })
    }

    /// The state of each proof, in the order asked.
    pub(super) async fn states(&self, ys: Vec<PublicKey>) -> Result<Vec<State>, MintError> {
        let request = CheckStateRequest { ys: ys.clone() };
        let ask = |client: HttpClient| async move { client.post_check_state(request).await };
        let answer = self.read(ask).await?;
        let states: HashMap<_, _> =
            answer.states.into_iter().map(|state| (state.y, state.state)).collect();
        let found: Option<Vec<State>> = ys.iter().map(|y| states.get(y).copied()).collect();
        found.ok_or(MintError::Ambiguous)
    }

    /// A call that changes nothing at the mint, and so may be given up.
    pub(super) async fn read<T, F>(&self, ask: impl FnOnce(HttpClient) -> F) -> Result<T, MintError>
    where
        F: Future<Output = Result<T, cdk::Error>>,
    {
        match tokio::time::timeout(self.timeout, self.call(ask)).await {
            Ok(answer) => answer,
            Err(_) => Err(MintError::Ambiguous),
        }
    }

    pub(super) async fn call<T, F>(&self, ask: impl FnOnce(HttpClient) -> F) -> Result<T, MintError>
    where
        F: Future<Output = Result<T, cdk::Error>>,
    {
        let idle = self.idle_clients().pop();
        let client = idle.unwrap_or_else(|| HttpClient::new(self.url.clone(), None));
        match ask(client.clone()).await {
            Ok(answer) => {
                let mut idle = self.idle_clients();
                if idle.len() < IDLE_MAX {
                    idle.push(client);
                }
                Ok(answer)
            }
            Err(error) => Err(conclude(&error)),
        }
    }

    // Both are sound after a panic elsewhere: every change is a single call.
    fn lock(&self) -> std::sync::MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn idle_clients(&self) -> std::sync::MutexGuard<'_, Vec<HttpClient>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Known {
    /// The outcome of a refresh since the `before`th, which whoever waited for it shares; or
    /// what is known, when there may be no further refresh yet.
    fn answered_since(&mut self, before: u64) -> Option<Answered> {
        let refreshed = self.refreshes != before;
        match (self.infos.clone(), self.failed.clone()) {
            (_, Some(error)) if refreshed => Some(Err(error)),
            (Some(infos), _) if refreshed || !self.may_refresh() => Some(Ok(infos)),
            _ => None,
        }
    }

    /// Tokens of invented keysets cannot make us ask the mint more often than this allows.
    fn may_refresh(&mut self) -> bool {
        let since = self.regained.get_or_insert_with(Stopwatch::start).elapsed();
        if since >= REFRESH_REGAINED {
            let regained = since.as_millis() / REFRESH_REGAINED.as_millis();
            let regained = u32::try_from(regained).unwrap_or(REFRESHES_MAX);
            self.refreshes_left = self.refreshes_left.saturating_add(regained).min(REFRESHES_MAX);
            self.regained = Some(Stopwatch::start());
        }
        let may = self.refreshes_left > 0;
        self.refreshes_left = self.refreshes_left.saturating_sub(1);
        may
    }
}

/// One spelling for one mint: scheme and host in lower case, no default port, no slash at the
/// end. Never a name lookup: `localhost` is not `127.0.0.1`.
pub(super) fn normalise(url: &str) -> Option<MintUrl> {
    let url = MintUrl::from_str(url.trim()).ok()?.to_string();
    let (scheme, rest) = url.split_once("://")?;
    let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
    let default_port = match scheme {
        "https" => ":443",
        "http" => ":80",
        _ => return None,
    };
    let host = host.strip_suffix(default_port).unwrap_or(host);
    if host.is_empty() || host.contains(['@', '?', '#']) {
        return None;
    }
    let slash = if path.is_empty() { "" } else { "/" };
    MintUrl::from_str(&format!("{scheme}://{host}{slash}{path}")).ok()
}

/// Errs towards [`MintError::Ambiguous`]: a wrong "nothing happened" could lose money, a wrong
/// "not known" costs one more look at the mint.
fn conclude(error: &cdk::Error) -> MintError {
    use cdk::Error;
    match error {
        Error::TokenAlreadySpent => MintError::Spent,
        Error::InactiveKeyset => MintError::KeysetInactive,
        // Ours are never twice in one request: to some mints this is the same as signed before.
        Error::BlindedMessageAlreadySigned | Error::DuplicateOutputs => MintError::OutputsUsed,
        Error::HttpError(Some(429), _) => MintError::RateLimited,
        Error::HttpError(Some(400..=499), _) => MintError::Refused("it does not take this request"),
        Error::HttpError(None, text) if never_connected(text) => MintError::Unreachable,
        Error::DHKE(_) => MintError::Refused("it did not issue these proofs"),
        Error::TransactionUnbalanced(..) => OTHER_FEE,
        Error::ExpiredKeyset | Error::UnknownKeySet => {
            MintError::Refused("keyset unknown or expired")
        }
        Error::UnitMismatch | Error::MultipleUnits | Error::UnsupportedUnit => {
            MintError::Refused("the units do not match")
        }
        Error::MaxInputsExceeded { .. } | Error::MaxOutputsExceeded { .. } => {
            MintError::Refused("too many proofs for one swap")
        }
        Error::PaymentFailed => MintError::Refused("the payment failed"),
        Error::SignatureMissingOrInvalid => MintError::Refused("the proofs are locked"),
        error if error.is_definitive_failure() => MintError::Refused("it refused the swap"),
        _ => MintError::Ambiguous,
    }
}

/// cdk hands on the text of an I/O error. Only connecting is refused, and only a name is
/// looked up, before the first byte is sent.
fn never_connected(text: &str) -> bool {
    let number = text.rsplit_once("(os error ").and_then(|(_, rest)| rest.strip_suffix(')'));
    let code = number.and_then(|number| number.parse().ok());
    let refused =
        |code| io::Error::from_raw_os_error(code).kind() == io::ErrorKind::ConnectionRefused;
    code.is_some_and(refused) || text.starts_with("failed to lookup address information")
}

/// What we know of the mint's fees is old.
const OTHER_FEE: MintError = MintError::Refused("it computes another fee");

/// How long a swap, or signing for a payment, may take before it is given up (and looked up
/// later).
pub(super) const SWAP_MAX: Duration = Duration::from_secs(600);

const IDLE_MAX: usize = 16;

const REFRESHES_MAX: u32 = 10;
const REFRESH_REGAINED: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_mint_has_one_spelling() {
        let same = |url: &str| normalise(url).map(|url| url.to_string());
        let expected = Some("https://mint.example/Bitcoin".to_owned());
        assert_eq!(same("https://mint.example/Bitcoin"), expected);
        assert_eq!(same(" HTTPS://Mint.Example:443/Bitcoin/ "), expected);
        assert_eq!(same("http://127.0.0.1:3338/"), Some("http://127.0.0.1:3338".to_owned()));
        assert_ne!(same("http://localhost:3338"), same("http://127.0.0.1:3338"));
        for odd in ["", "mint.example", "ftp://mint.example", "https://", "https://a@mint.example"]
        {
            assert_eq!(same(odd), None, "{odd}");
        }
    }

    #[test]
    fn only_a_connection_never_made_counts_as_nothing_sent() {
        let io = |code| cdk::Error::HttpError(None, io::Error::from_raw_os_error(code).to_string());
        assert_eq!(conclude(&io(111)), MintError::Unreachable);
        assert_eq!(conclude(&io(104)), MintError::Ambiguous, "reset, perhaps after sending");
        assert_eq!(conclude(&io(110)), MintError::Ambiguous);
        let status = |status| cdk::Error::HttpError(Some(status), String::new());
        assert_eq!(conclude(&status(502)), MintError::Ambiguous);
        assert_eq!(conclude(&status(429)), MintError::RateLimited);
        assert!(matches!(conclude(&status(400)), MintError::Refused(_)));
        assert_eq!(conclude(&cdk::Error::TokenPending), MintError::Ambiguous);
    }

    #[test]
    fn refreshes_caused_by_strangers_are_bounded() {
        let mut known = Known { refreshes_left: REFRESHES_MAX, ..Known::default() };
        let allowed = (0..100).filter(|_| known.may_refresh()).count();
        assert_eq!(allowed, REFRESHES_MAX as usize);
    }
}
