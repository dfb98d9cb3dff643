//! The tables: what is never found where, and what to do instead.

use crate::read::{names, shipped};
use crate::repository::File;

/// What is never found in some files, and what to do instead.
pub(crate) struct Rule {
    /// Path prefixes of the files it is about.
    among: &'static [&'static str],
    except: &'static [&'static str],
    view: View,
    /// Whole words; a `*` at the end takes every word that begins so.
    never: &'static [&'static str],
    instead: &'static str,
}

/// How much of a file a rule looks at.
#[derive(Clone, Copy)]
enum View {
    Everything,
    /// Without comments, text literals and `#[cfg(test)] mod tests`.
    Shipped,
}

use View::{Everything, Shipped};

pub(crate) const LAYERS: &[Rule] = &[
    Rule {
        among: &["src/"],
        except: &["src/edge/"],
        view: Shipped,
        never: &["pingora*"],
        instead: "only edge knows which proxy this is built on",
    },
    Rule {
        among: &["src/"],
        except: &["src/wallet/"],
        view: Shipped,
        never: &["cdk*", "cashu::"],
        instead: "only wallet knows which Cashu library this is built on",
    },
    Rule {
        among: &["src/"],
        except: &["src/store/", "src/ledger/"],
        view: Shipped,
        never: &["rusqlite"],
        instead: "rows are written and read where they are defined; call the ledger or the wallet",
    },
    Rule {
        among: &["src/"],
        except: &["src/store/"],
        view: Shipped,
        never: &["postgres::", "tokio_postgres*"],
        instead: "only store knows which databases there are; a statement goes through its Tx",
    },
    Rule {
        among: &["src/"],
        except: &["src/fetch/"],
        view: Shipped,
        never: &["reqwest*"],
        instead: "only fetch knows which HTTP client this is built on; it keeps what is fetched bounded",
    },
    Rule {
        among: &["src/"],
        except: &["src/api/", "src/edge/"],
        view: Shipped,
        never: &["axum"],
        instead: "only api answers requests; edge calls its router",
    },
    Rule {
        among: &["lua-free-filters/src/"],
        except: &[],
        view: Shipped,
        never: &[
            "tokio",
            "async",
            "await",
            "pingora*",
            "axum",
            "nutgate",
            "log",
            "std::net",
            "std::time",
            "std::fs",
            "std::io",
            "std::env",
            "std::thread",
            "std::sync::Mutex",
        ],
        instead: "a filter is a function of its arguments; edge acts on what it returns",
    },
    Rule {
        among: &[
            "src/ledger/book.rs",
            "src/pricing/",
            "src/money.rs",
            "src/catalogue/listing.rs",
            "src/upstream/breaker.rs",
            "src/upstream/health.rs",
            "src/upstream/latency.rs",
            "src/upstream/select.rs",
            "src/upstream/unsupported.rs",
        ],
        except: &[],
        view: Shipped,
        never: &["tokio", "async", "std::net", "std::fs", "std::io", "UnixMs::now", "Stopwatch"],
        instead: "these decide and never act: time and input are arguments",
    },
    Rule {
        among: &[
            "src/money.rs",
            "src/pricing/",
            "src/catalogue/",
            "src/ledger/",
            "src/wallet/",
            "src/till.rs",
        ],
        except: &[],
        view: Shipped,
        never: &["f32", "f64"],
        instead: "money is Msat and prices are Rate: integers",
    },
];

pub(crate) const WORDS: &[Rule] = &[
    Rule {
        among: &["src/", "lua-free-filters/src/"],
        // cdk's types have fields and modules of that name.
        except: &["src/wallet/incoming.rs", "src/wallet/issue.rs"],
        view: Shipped,
        never: &["token"],
        instead: "cashu_token for ecash, api_key for a secret, input_tokens and the like for usage",
    },
    Rule {
        among: &["src/", "lua-free-filters/src/"],
        except: &[],
        view: Shipped,
        never: &["tokens_used", "token_count", "num_tokens"],
        instead: "usage: input_tokens, cached_input_tokens, output_tokens",
    },
    Rule {
        among: &["src/", "lua-free-filters/src/"],
        except: &[],
        view: Shipped,
        never: &["total_balance", "effective_balance", "overdraft"],
        instead: "available and reserved; cost the balance could not cover is a shortfall",
    },
    Rule {
        among: &["src/", "lua-free-filters/src/"],
        except: &[],
        view: Shipped,
        never: &["fn get_*", "fn finalize", "fn authorize", "fn capture", "fn charge"],
        instead: "no get_; the verbs are reserve, settle, release, expire",
    },
    Rule {
        among: &["src/", "lua-free-filters/src/", "tests/"],
        except: &["tests/tidy/"],
        view: Shipped,
        never: &["mod util", "mod utils", "mod helper", "mod helpers", "mod common", "mod misc"],
        instead: "a module is named after what it promises",
    },
];

pub(crate) const LEFTOVERS: &[Rule] = &[
    Rule {
        among: &[""],
        except: &["tests/tidy/"],
        view: Everything,
        never: &["TODO", "FIXME", "XXX", "HACK"],
        instead: "do it, or say in README under what is not built yet",
    },
    Rule {
        among: &[""],
        except: &["tests/tidy/"],
        view: Everything,
        never: &[
            "#[ignore*",
            "#[should_panic]",
            "pytest.skip",
            "mark.skip*",
            "mark.xfail",
            "test.skip",
            "it.skip",
            "test.todo",
        ],
        instead: "a test runs or is deleted; an expected panic says its message",
    },
    Rule {
        among: &[""],
        except: &["tests/tidy/"],
        view: Everything,
        never: &["/work/", "/home/", "/root/", "/tmp/", "/Users/"],
        instead: "no path of anybody's machine; tests make a temporary directory",
    },
    Rule {
        among: &["tests/sdk/"],
        except: &[],
        view: Everything,
        never: &["\"resolved\":", "--index-url", "--registry"],
        instead: "versions are pinned here; where packages come from is the machine's affair",
    },
];

pub(crate) fn broken(rules: &[Rule], files: &[File]) -> Vec<String> {
    let mut offences = Vec::new();
    for file in files {
        let begins = |with: &&str| file.path.starts_with(with);
        let rules = rules
            .iter()
            .filter(|rule| rule.among.iter().any(&begins) && !rule.except.iter().any(&begins));
        let shipped = shipped(&file.text);
        for rule in rules {
            let view = match rule.view {
                Everything => &file.text,
                Shipped if !file.is_rust() || file.is_unit_tests() => continue,
                Shipped => &shipped,
            };
            for (line, text) in (1..).zip(view.lines()) {
                for word in rule.never.iter().filter(|word| names(text, word)) {
                    let Rule { instead, .. } = rule;
                    offences.push(format!("{}:{line}: `{word}`: {instead}", file.path));
                }
            }
        }
    }
    offences
}
