//! The ledger's verbs as Redis runs them: one script each, atomic by nature.
//!
//! A script's name carries its version. A changed rule has a new name, so that the gateways of a
//! rolling deploy agree about what a name does; those of the version before bring the old text
//! with them. What a script writes has to be readable by both.

use super::RECEIPTS_KEPT;
use super::link::Call;
use crate::ledger::once::{KEPT_WINDOW, ONCE_BYTES, ONCE_KEPT};
use crate::ledger::terms::Terms;
use crate::ledger::{CHILDREN_MAX, Retention};

/// One script, and the hash that a server which has seen it knows it by.
#[derive(Clone, Debug)]
pub(super) struct Script {
    pub(super) hash: String,
    pub(super) code: String,
}

impl Script {
    fn new(code: String) -> Self {
        Self { hash: redis::Script::new(&code).get_hash().to_owned(), code }
    }
}

/// Every script, with what it needs in front of it.
#[derive(Clone, Debug)]
pub struct Scripts {
    pub(super) open: Script,
    pub(super) children: Script,
    pub(super) amend: Script,
    pub(super) family: Script,
    pub(super) deposit: Script,
    pub(super) admit: Script,
    pub(super) extend: Script,
    pub(super) renew: Script,
    pub(super) end: Script,
    pub(super) expire: Script,
    pub(super) withdraw: Script,
    pub(super) undraw: Script,
    pub(super) history: Script,
    pub(super) look: Script,
    pub(super) strays: Script,
    pub(super) claim: Script,
    pub(super) keep: Script,
    pub(super) forget: Script,
    pub(super) kept: Script,
}

impl Default for Scripts {
    fn default() -> Self {
        Self::keeping(Retention::default())
    }
}

impl Scripts {
    /// The scripts as `edit` changes them, called with a file's name and its text: how a
    /// simulation plants a bug that it must find.
    pub fn edited(edit: &dyn Fn(&str, &str) -> String) -> Self {
        Self::made(Retention::default(), edit)
    }

    /// The scripts of a ledger whose histories are told so far.
    pub fn keeping(retention: Retention) -> Self {
        Self::made(retention, &|_, source| source.to_owned())
    }

    fn made(retention: Retention, edit: &dyn Fn(&str, &str) -> String) -> Self {
        let common = settings(retention) + &edit("common.lua", COMMON);
        let history = edit("history.lua", HISTORY);
        let ending = edit("ending.lua", ENDING);
        let plain = |name, source| Script::new([common.as_str(), &edit(name, source)].concat());
        let notes = |name, source| {
            Script::new([common.as_str(), history.as_str(), &edit(name, source)].concat())
        };
        let ends = |name, source| {
            let parts = [common.as_str(), history.as_str(), ending.as_str(), &edit(name, source)];
            Script::new(parts.concat())
        };
        let once = once_settings() + &edit("once.lua", ONCE);
        let once = |name, source| {
            Script::new([common.as_str(), once.as_str(), &edit(name, source)].concat())
        };
        Self {
            open: plain("open.v2.lua", include_str!("scripts/open.v2.lua")),
            children: plain("children.v1.lua", include_str!("scripts/children.v1.lua")),
            amend: plain("amend.v1.lua", include_str!("scripts/amend.v1.lua")),
            family: plain("family.v1.lua", include_str!("scripts/family.v1.lua")),
            deposit: notes("deposit.v2.lua", include_str!("scripts/deposit.v2.lua")),
            admit: once("admit.v3.lua", include_str!("scripts/admit.v3.lua")),
            extend: plain("extend.v1.lua", include_str!("scripts/extend.v1.lua")),
            renew: ends("renew.v2.lua", include_str!("scripts/renew.v2.lua")),
            end: ends("end.v2.lua", include_str!("scripts/end.v2.lua")),
            expire: ends("expire.v2.lua", include_str!("scripts/expire.v2.lua")),
            withdraw: notes("withdraw.v2.lua", include_str!("scripts/withdraw.v2.lua")),
            undraw: notes("undraw.v2.lua", include_str!("scripts/undraw.v2.lua")),
            history: plain("history.v2.lua", include_str!("scripts/history.v2.lua")),
            look: plain("look.v1.lua", include_str!("scripts/look.v1.lua")),
            strays: plain("strays.v1.lua", include_str!("scripts/strays.v1.lua")),
            claim: once("claim.v1.lua", include_str!("scripts/claim.v1.lua")),
            keep: once("keep.v1.lua", include_str!("scripts/keep.v1.lua")),
            forget: once("forget.v1.lua", include_str!("scripts/forget.v1.lua")),
            kept: once("kept.v1.lua", include_str!("scripts/kept.v1.lua")),
        }
    }
}

/// What is the same here and in every script.
fn settings(retention: Retention) -> String {
    let fields = ACCOUNT_FIELDS.map(|field| format!("'{field}'")).join(",");
    let kept = RECEIPTS_KEPT.as_millis();
    let Retention { entries_max, kept: told } = retention;
    let told = told.map_or(0, |told| told.as_millis());
    format!(
        "local ACCOUNT_FIELDS, RECEIPTS_KEPT, ENTRIES_MAX = {{{fields}}}, {kept}, {entries_max}\n\
         local HISTORY_KEPT = {told}\n\
         local CHILDREN_MAX = {CHILDREN_MAX}\n"
    )
}

/// What is the same here and in the scripts of requests that are made once.
fn once_settings() -> String {
    let (kept, window) = (ONCE_KEPT.as_millis(), KEPT_WINDOW.as_millis());
    format!("local ONCE_KEPT, KEPT_WINDOW, ONCE_BYTES = {kept}, {window}, {ONCE_BYTES}\n")
}

/// The terms of a key as the fields that its hash will have.
pub(super) fn with_terms<'s>(call: Call<'s>, terms: &Terms) -> Call<'s> {
    let fields = [
        ("ex", terms.expires.map(|at| at.0.to_string())),
        ("ca", terms.cap.map(|cap| cap.amount.get().to_string())),
        ("cr", terms.cap.map(|cap| cap.reset.name().to_owned())),
        ("lr", terms.requests_per_minute.map(|limit| limit.to_string())),
        ("lt", terms.tokens_per_hour.map(|limit| limit.to_string())),
        ("lc", terms.concurrent.map(|limit| limit.to_string())),
    ];
    let given = fields.into_iter().filter_map(|(name, value)| Some((name, value?)));
    given.fold(call, |call, (name, value)| call.arg(name).arg(value))
}

/// The fields of an account's hash, in the order in which they are answered and read.
pub(super) const ACCOUNT_FIELDS: [&str; 27] = [
    "de", "av", "re", "sp", "rf", "sh", "rq", "wd", "op", "hn", "pa", "ex", "ca", "cr", "lr", "lt",
    "lc", "ko", "kh", "kt", "ks", "kb", "kp", "rs", "rc", "ts", "tc",
];

/// Beside them, of a parent whose children were ever opened.
pub(super) const HAS_CHILDREN: &str = "hc";

const COMMON: &str = include_str!("scripts/common.lua");
const HISTORY: &str = include_str!("scripts/history.lua");
const ONCE: &str = include_str!("scripts/once.lua");
const ENDING: &str = include_str!("scripts/ending.lua");
