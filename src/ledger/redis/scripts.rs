//! The ledger's verbs as Redis runs them: one script each, atomic by nature.
//!
//! A script's name carries its version. A changed rule is a new file beside the old one, so that
//! the gateways of a rolling deploy agree about what a name does.

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
    pub(super) deposit: Script,
    pub(super) admit: Script,
    pub(super) extend: Script,
    pub(super) renew: Script,
    pub(super) end: Script,
    pub(super) expire: Script,
    pub(super) withdraw: Script,
    pub(super) undraw: Script,
    pub(super) look: Script,
    pub(super) strays: Script,
}

impl Default for Scripts {
    fn default() -> Self {
        Self::edited(&|_, source| source.to_owned())
    }
}

impl Scripts {
    /// The scripts as `edit` changes them, called with a file's name and its text: how a
    /// simulation plants a bug that it must find.
    pub fn edited(edit: &dyn Fn(&str, &str) -> String) -> Self {
        let common = edit("common.lua", COMMON);
        let ending = edit("ending.lua", ENDING);
        let plain = |name, source| Script::new([common.as_str(), &edit(name, source)].concat());
        let ends = |name, source| {
            Script::new([common.as_str(), ending.as_str(), &edit(name, source)].concat())
        };
        Self {
            open: plain("open.v1.lua", include_str!("scripts/open.v1.lua")),
            deposit: plain("deposit.v1.lua", include_str!("scripts/deposit.v1.lua")),
            admit: plain("admit.v1.lua", include_str!("scripts/admit.v1.lua")),
            extend: plain("extend.v1.lua", include_str!("scripts/extend.v1.lua")),
            renew: ends("renew.v1.lua", include_str!("scripts/renew.v1.lua")),
            end: ends("end.v1.lua", include_str!("scripts/end.v1.lua")),
            expire: ends("expire.v1.lua", include_str!("scripts/expire.v1.lua")),
            withdraw: plain("withdraw.v1.lua", include_str!("scripts/withdraw.v1.lua")),
            undraw: plain("undraw.v1.lua", include_str!("scripts/undraw.v1.lua")),
            look: plain("look.v1.lua", include_str!("scripts/look.v1.lua")),
            strays: plain("strays.v1.lua", include_str!("scripts/strays.v1.lua")),
        }
    }
}

const COMMON: &str = include_str!("scripts/common.lua");
const ENDING: &str = include_str!("scripts/ending.lua");
