//! The default file, and files with mistakes: the exact messages and lines an operator reads.

mod foreign;
mod guard;
mod history;
mod idempotency;
mod lightning;
mod listen;
mod models;
mod refunds;
mod webhooks;

use std::collections::HashMap;
use std::io;
use std::path::Path;

use serde_yaml::Value;

use super::mistake::{KeyPath, Step};
use super::schema::File;
use super::yaml::value_at;
use super::*;

/// A machine of the test's making.
#[derive(Default)]
struct Stage {
    variables: HashMap<&'static str, &'static str>,
    files: HashMap<&'static str, &'static str>,
}

impl Outside for Stage {
    fn variable(&self, name: &str) -> Option<String> {
        self.variables.get(name).map(|value| (*value).to_owned())
    }

    fn file(&self, path: &Path) -> io::Result<String> {
        let text = path.to_str().and_then(|path| self.files.get(path));
        text.map(|text| (*text).to_owned()).ok_or(io::ErrorKind::NotFound.into())
    }

    fn room_for_directory(&self, path: &Path) -> Result<(), String> {
        if path.starts_with("/full") { Err("/full is read-only".to_owned()) } else { Ok(()) }
    }
}

pub(super) fn parse(text: &str) -> Result<Config, Mistakes> {
    let stage = Stage {
        variables: HashMap::from([("KEY", "sk-secret"), ("EMPTY", ""), ("PORT", "8000")]),
        files: HashMap::from([
            ("/run/key", "from-a-file\n"),
            ("/run/postgres", "postgresql://u:from-a-file@db/nutgate\n"),
            ("/ca.pem", "no certificate"),
            ("/etc/nutgate/tls/fullchain.pem", "-----BEGIN CERTIFICATE-----"),
            ("/etc/nutgate/tls/key.pem", "-----BEGIN EC PRIVATE KEY-----"),
        ]),
    };
    Config::parse("f.yaml", text, &stage)
}

/// The documented examples, with the marks of the comments taken away.
fn with_examples() -> String {
    let mut text = String::new();
    for line in DEFAULT.lines() {
        let nested = line.strip_prefix("  #   ").map(|example| format!("  {example}"));
        match nested.as_deref().or(line.strip_prefix("#   ")) {
            Some(example) => text.push_str(&format!("{example}\n")),
            None if REPLACED.contains(&line) => {}
            None => text.push_str(&format!("{line}\n")),
        }
    }
    ["OPENAI_API_KEY", "OPENROUTER_API_KEY", "REDIS_PASSWORD", "PG_PASSWORD"]
        .iter()
        .fold(text, |text, name| text.replace(&format!("${{{name}}}"), "${KEY}"))
}

/// The defaults that stand below an example.
const REPLACED: [&str; 6] = [
    "  tls: null",
    "fleet: null",
    "btc_usd_feed: null",
    "mints: []",
    "upstreams: []",
    "models: []",
];

fn tree(text: &str) -> Value {
    Document::read(text, &mut Found::default()).map_err(|mistake| mistake.message).unwrap().value
}

/// Every mapping of a tree, by its path.
fn mappings(value: &Value, path: &KeyPath, all: &mut Vec<KeyPath>) {
    match value {
        Value::Mapping(mapping) => {
            all.push(path.clone());
            for (key, value) in mapping {
                mappings(value, &path.key(key.as_str().unwrap()), all);
            }
        }
        Value::Sequence(sequence) => {
            for (index, value) in sequence.iter().enumerate() {
                mappings(value, &path.index(index), all);
            }
        }
        _ => {}
    }
}

#[test]
fn the_file_on_disk_is_the_default_of_the_program() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("conf/nutgate.yaml");
    let read = Config::load(&path).unwrap();
    assert_eq!(format!("{read:?}"), format!("{:?}", Config::default()));
    assert_eq!(read.limits.body_bytes_max, 10_000_000);
    assert!(read.listen.address.ip().is_loopback() && read.admin_address.ip().is_loopback());
}

#[test]
fn every_key_of_the_schema_is_documented_and_no_other_is_accepted() {
    let documented = tree(&with_examples());
    let mut all = Vec::new();
    mappings(&documented, &KeyPath::default(), &mut all);
    assert!(all.len() >= 13, "{all:?}");
    for path in &all {
        let mut value = documented.clone();
        let mapping = value_at(&mut value, path.steps()).unwrap().as_mapping_mut().unwrap();
        mapping.insert("zzz".into(), Value::Null);
        let error = serde_path_to_error::deserialize::<_, File>(value.clone()).unwrap_err();
        assert_eq!(error.path().to_string(), path.key("zzz").to_string());
        let message = error.inner().to_string();
        let (_, expected) = message.split_once("expected").unwrap();
        // What one element of a list shows, the others need not.
        let alike: Vec<KeyPath> =
            all.iter().filter(|other| same_keys(other, path)).cloned().collect();
        for key in expected.split('`').skip(1).step_by(2) {
            let mut shown =
                alike.iter().filter_map(|path| value_at(&mut value, path.steps()).cloned());
            assert!(shown.any(|it| it.get(key).is_some()), "{path}: `{key}` is not documented");
        }
    }
}

/// Whether two paths differ in nothing but the indices of lists.
fn same_keys(one: &KeyPath, other: &KeyPath) -> bool {
    let mut pairs = one.steps().iter().zip(other.steps());
    let alike = |(one, other): (&Step, &Step)| {
        matches!((one, other), (Step::Index(_), Step::Index(_))) || one == other
    };
    one.steps().len() == other.steps().len() && pairs.all(alike)
}

#[test]
fn the_examples_show_the_defaults_of_what_may_be_left_out() {
    let full = parse(&with_examples()).unwrap();
    let short = parse(SHORT).unwrap();
    assert_eq!(format!("{:?}", full.mints), format!("{:?}", short.mints));
    assert_eq!(format!("{:?}", full.fleet), format!("{:?}", short.fleet));
    assert_eq!(format!("{:?}", full.btc_usd_feed), format!("{:?}", short.btc_usd_feed));
    assert_eq!(format!("{:?}", full.upstreams), format!("{:?}", short.upstreams));
    let full = &full.models[0];
    assert_eq!((full.name.as_str(), full.max_output_tokens), ("GPT-4o mini", 16_384));
    let full = Model { name: full.id.clone(), ..full.clone() };
    assert_eq!(format!("{full:?}"), format!("{:?}", short.models[0]));
}

const SHORT: &str = "
fleet: {redis: 'redis://r', postgres: 'postgres:///p'}
mints: [{url: https://mint.example.com}]
btc_usd_feed:
  sources:
    - {url: https://api.coinbase.com/v2/prices/BTC-USD/spot, path: data.amount}
    - {url: 'https://api.kraken.com/0/public/Ticker?pair=XBTUSD', path: result.XXBTZUSD.c.0}
    - {url: https://www.bitstamp.net/api/v2/ticker/btcusd/, path: last}
upstreams:
  - {name: openai, base_url: https://api.openai.com/v1/, api_key: '${KEY}',
     health: {probe: {path: /models}}}
  - {name: openrouter, base_url: https://openrouter.ai/api/v1, api_key: '${KEY}', models: {}}
models:
  - {id: gpt-4o-mini, context_length: 128000, max_output_tokens: 16384, upstreams: [openai],
     image_tokens: {low: 2833, high: 48169},
     price: {currency: sat, input: 150, output: 600, cached_input: 75.0,
             images: [{size: 1024x1024, price: 40}]}}
";

#[test]
fn a_file_overrides_key_by_key_and_an_empty_section_changes_nothing() {
    let config = parse("limits:\n  body_bytes_max: 5\nmints:\nlisten:\nlog: debug\n").unwrap();
    let default = Config::default();
    assert_eq!(config.limits.body_bytes_max, 5);
    assert_eq!(config.limits.held_bytes_max, default.limits.held_bytes_max);
    assert_eq!(config.listen.address, default.listen.address);
    assert_eq!(config.log, "debug");
}

#[test]
fn references_are_resolved_and_secrets_are_not_shown() {
    let config = parse(
        "description: costs $5, or $${KEY}\n\
         http_url: https://host:${PORT}/\n\
         limits: {body_bytes_max: '${PORT}'}\n\
         fleet: {redis: 'rediss://:${KEY}@r', postgres: 'file:/run/postgres'}\n\
         upstreams:\n\
         - {name: a, base_url: 'http://127.0.0.1:${PORT}/v1', api_key: 'Bearer-${KEY}'}\n\
         - {name: b, base_url: 'http://localhost', api_key: 'file:/run/key'}\n\
         - {name: c, base_url: 'http://vllm:1', allow_insecure: true}\n",
    )
    .unwrap();
    assert_eq!(config.description, "costs $5, or ${KEY}");
    assert_eq!(config.http_url, "https://host:8000");
    assert_eq!(config.limits.body_bytes_max, 8000);
    assert_eq!(config.upstreams[0].base_url, "http://127.0.0.1:8000/v1");
    assert_eq!(config.upstreams[0].api_key.reveal(), "Bearer-sk-secret");
    assert_eq!(config.upstreams[1].api_key.reveal(), "from-a-file");
    assert!(config.upstreams[2].api_key.is_empty());
    let fleet = config.fleet.as_ref().unwrap();
    assert_eq!(fleet.redis.reveal(), "rediss://:sk-secret@r");
    assert_eq!(fleet.postgres.reveal(), "postgresql://u:from-a-file@db/nutgate");
    let shown = format!("{config:?}");
    assert!(!shown.contains("sk-secret") && !shown.contains("from-a-file"));
}

#[test]
fn prices_are_read_exactly_as_written() {
    let input = |written: &str| {
        let text = SHORT.replace("input: 150,", &format!("input: {written},"));
        parse(&text).map(|config| config.models[0].price.input.billionths)
    };
    assert_eq!(input("0.15").unwrap(), 150_000_000);
    assert_eq!(input("'0.15'").unwrap(), 150_000_000);
    assert_eq!(input("0.1").unwrap(), 100_000_000);
    assert_eq!(input("123456789.123456789").unwrap(), 123_456_789_123_456_789);
    assert!(input("0.1500000000000000001").is_err(), "a double would hide the last digit");
}

#[test]
fn a_gateway_is_alone_with_its_seed_beside_its_data_unless_told_otherwise() {
    let config = parse("data_dir: /data\n").unwrap();
    assert!(config.fleet.is_none());
    assert_eq!(config.seed_file, Path::new("/data/seed"));
    let config = parse("seed_file: /run/secrets/seed\n").unwrap();
    assert_eq!(config.seed_file, Path::new("/run/secrets/seed"));
}

/// What is reported for `text`, without the name of the file.
pub(super) fn reported(text: &str) -> Vec<String> {
    let mistakes = parse(text).map(|_| String::new()).unwrap_or_else(|all| all.to_string());
    mistakes.lines().map(|line| line.strip_prefix("f.yaml:").unwrap().to_owned()).collect()
}

#[test]
fn every_mistake_is_reported_with_its_line_and_key() {
    check_mistakes(MISTAKES);
}

/// Each text of a table is reported as its row says, and nothing else.
#[track_caller]
pub(super) fn check_mistakes(table: &[(&str, &[&str])]) {
    let wrong: Vec<_> = table
        .iter()
        .map(|(text, expected)| (text, reported(text), in_full(expected)))
        .filter(|(_, reported, expected)| reported != expected)
        .collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// The table has short words for what is long and always the same.
fn in_full(expected: &[&str]) -> Vec<String> {
    let levels = "`off`, `error`, `warn`, `info`, `debug`, `trace` (did you mean `info`?)";
    let duration = "a duration like `250ms`, `10s` or `5m`";
    let full = |line: &&str| line.replace("LEVELS", levels).replace("DURATION", duration);
    expected.iter().map(full).collect()
}

const MISTAKES: &[(&str, &[&str])] = &[
    ("a: [\n", &["2: not YAML: did not find expected node content"]),
    ("- 1\n", &[" a configuration is a mapping of keys to values"]),
    ("lisen: {}\n", &["1: lisen: unknown key (did you mean `listen`?)"]),
    (
        "\nlimits:\n  body_bytes: 1\n",
        &["3: limits.body_bytes: unknown key (did you mean `body_bytes_max`?)"],
    ),
    ("log: info\nname: x\nlog: warn\n", &["3: log: given twice"]),
    ("limits:\n  body_bytes_max: 1\nlimits:\n  held_bytes_max: 1\n", &["3: limits: given twice"]),
    ("1: x\n", &["1: 1: a key is text; put it in quotes"]),
    ("log: inf\nlog: warn\n", &["1: log: `inf` is not one of LEVELS", "2: log: given twice"]),
    ("name: a\r\nlimits: {body_timeout: 1}\r\n", &["2: limits.body_timeout: `1` is not DURATION"]),
    (
        "name: é\nprice: 0.15\nbtc_usd: 0.155 # über\n",
        &["2: price: unknown key", "3: btc_usd: has more than two decimals"],
    ),
    (
        "admin: {address: '127.0.0.1:8080'}",
        &["1: admin.address: is the address of `listen`; clients would reach it"],
    ),
    ("\u{feff}name: x\nlog: inf\n", &["2: log: `inf` is not one of LEVELS"]),
    (
        "a: &a [x]\n---\nb: 1\n",
        &[" not YAML: deserializing from YAML containing more than one document is not supported"],
    ),
    ("name: !x y\n", &["1: name: the tag `!x` means nothing here"]),
    ("name: 5\n", &["1: name: expected text, found a number"]),
    ("name:\n", &["1: name: expected text, found nothing"]),
    ("listen: 8080\n", &["1: listen: expected a mapping, found a number"]),
    ("mints: https://m\n", &["1: mints: expected a list, found text"]),
    (
        "headers: {refund_alias: 1}",
        &["1: headers.refund_alias: expected true or false, found a number"],
    ),
    (
        "listen: {address: localhost}",
        &["1: listen.address: `localhost` is not an address with a port, like `127.0.0.1:8080`"],
    ),
    ("mint_timeout: 10", &["1: mint_timeout: `10` is not DURATION"]),
    ("mint_timeout: 0s", &["1: mint_timeout: must be longer than nothing"]),
    (
        "limits: {body_bytes_max: 10MB}",
        &["1: limits.body_bytes_max: `10MB` is not a whole number from 0 on"],
    ),
    ("limits: {body_bytes_max: 0}", &["1: limits.body_bytes_max: must be from 1 to 4294967296"]),
    (
        "rate_limits:\n  concurrent: 0\n  requests_per_minute: -1\n  tokens_per_hour: 0\n",
        &[
            "2: rate_limits.concurrent: must be from 1 to 1000000000",
            "3: rate_limits.requests_per_minute: `-1` is not a whole number from 0 on",
            "4: rate_limits.tokens_per_hour: must be from 1 to 1000000000",
        ],
    ),
    ("log: inf", &["1: log: `inf` is not one of LEVELS"]),
    (
        "errors: {dialect: paypal}",
        &["1: errors.dialect: `paypal` is not one of `reference`, `routstr`"],
    ),
    (
        "errors:\n  missing_credential_status: 403",
        &["2: errors.missing_credential_status: must be 401 or 402"],
    ),
    ("audit: {every: 0s}", &["1: audit.every: must be longer than nothing"]),
    ("audit: {every: 7}", &["1: audit.every: `7` is not DURATION"]),
    (
        "reservation:\n  lifetime: 10s\n  slice_output_tokens: 2_000_000_000\n",
        &[
            "1: reservation.renew_every: must be less than half of `reservation.lifetime`",
            "3: reservation.slice_output_tokens: must be from 0 to 1000000000",
        ],
    ),
    ("data_dir: /full/x", &["1: data_dir: /full is read-only"]),
    ("data_dir: ''", &["1: data_dir: is required"]),
    ("seed_file: ''", &["1: seed_file: names no file; null for `seed` in `data_dir`"]),
    ("fleet: {}\n", &["1: fleet.redis: is required", "1: fleet.postgres: is required"]),
    (
        "fleet:\n  redis: redis://r\n  postgres: postgresql://u:p@h/d?sslmode=prefer\n",
        &["3: fleet.postgres: `sslmode` is `disable` or `verify-full`"],
    ),
    (
        "fleet:\n  redis: http://r\n  postgres: 'postgresql://'\n  ledger_timeout: 1\n  pg: x\n",
        &[
            "2: fleet.redis: begins with none of `redis://`, `rediss://`, `redis+cluster://`, \
             `rediss+cluster://`, `redis+sentinel://`",
            "3: fleet.postgres: names no server",
            "4: fleet.ledger_timeout: `1` is not DURATION",
            "5: fleet.pg: unknown key",
        ],
    ),
    (
        "fleet: {redis: 5, postgres: 'file:/nowhere'}\n",
        &[
            "1: fleet.postgres: the file `/nowhere` cannot be read: entity not found",
            "1: fleet.redis: is text; put it in quotes",
        ],
    ),
    ("btc_usd_feed: {}\n", &["1: btc_usd_feed.sources: must be from 1 to 20 sources"]),
    (
        "btc_usd_feed:\n  sources:\n  - url: http://host/?key=secret\n    path: a..b\n  - {}\n  \
         every: 10s\n  stale_after: 19s\n  agree_within_percent: 50.1\n  sources_min: 3\n",
        &[
            "3: btc_usd_feed.sources[0].url: plain http to another machine needs \
             `allow_insecure: true`",
            "4: btc_usd_feed.sources[0].path: is not keys and indices with dots between them",
            "5: btc_usd_feed.sources[1].url: is required",
            "5: btc_usd_feed.sources[1].path: is required",
            "7: btc_usd_feed.stale_after: must be at least 2 times `every`",
            "8: btc_usd_feed.agree_within_percent: must be above 0 and at most 50",
            "9: btc_usd_feed.sources_min: must be from 1 to the 2 of `sources`; it is 3",
        ],
    ),
    (
        "upstreams:\n- name: a\n  base_url: https://u\n  models:\n    every: 1h\n    stale_after: \
         119m\n    include: [a b]\n    markup_percent: 1001\n    id_prefix: ' '\n",
        &[
            "4: upstreams[0].models: lists prices in usd, which need `btc_usd_feed` or `btc_usd`",
            "6: upstreams[0].models.stale_after: must be at least 2 times `every`",
            "7: upstreams[0].models.include[0]: must be without spaces",
            "8: upstreams[0].models.markup_percent: must be from 0 to 1000",
            "9: upstreams[0].models.id_prefix: must be without spaces",
        ],
    ),
    ("http_url: host", &["1: http_url: is not an address like `https://host/prefix`"]),
    ("btc_usd: 0", &["1: btc_usd: must be more than 0; null for no rate"]),
    ("btc_usd: 1.001", &["1: btc_usd: has more than two decimals"]),
    ("btc_usd: -1", &["1: btc_usd: must not be negative"]),
    (
        "btc_usd: -1\nupstreams: [{name: u, base_url: 'https://u'}]\nmodels: [{id: m, \
         context_length: 1, max_output_tokens: 1, upstreams: [u], price: {currency: usd, \
         input: 1, output: 1}, upstream_model: ''}]\n",
        &["1: btc_usd: must not be negative", "3: models[0].upstream_model: is required"],
    ),
    ("name: ${NOWHERE}", &["1: name: the environment variable `NOWHERE` is not set"]),
    ("name: ${NOWHERE", &["1: name: `${` without a `}`"]),
    (
        "mint_timeout: ${NOWHERE}",
        &["1: mint_timeout: the environment variable `NOWHERE` is not set"],
    ),
    (
        "mints:\n- url: http://mint.example\n- url: https://a\n  units: [sat, eur]\n\
         - url: https://A/\n-\n- {}\n",
        &[
            "2: mints[0].url: plain http to another machine needs `allow_insecure: true`",
            "4: mints[1].units[1]: `eur` is not one of `sat`, `msat`",
            "5: mints[2].url: `https://a` is already at mints[1].url",
            "6: mints[3]: is empty",
            "7: mints[4].url: is required",
        ],
    ),
    (
        "upstreams:\n- name: a b\n  base_url: https://u?x=1\n  api_key: 12345\n- name: b\n  \
         base_url: https://me:sk-x@u\n  api_key: file:/nowhere\n  ca_file: /ca.pem\n- name: b\n  \
         api_key: ${EMPTY}\n  timeouts: {connect: 1, idel: 2s}\n",
        &[
            "2: upstreams[0].name: must be without spaces",
            "3: upstreams[0].base_url: must end with its path, without `?` or `#`",
            "4: upstreams[0].api_key: is text; put it in quotes",
            "6: upstreams[1].base_url: must not hold credentials",
            "7: upstreams[1].api_key: the file `/nowhere` cannot be read: entity not found",
            "8: upstreams[1].ca_file: `/ca.pem` holds no PEM certificate",
            "9: upstreams[2].name: `b` is already at upstreams[1].name",
            "9: upstreams[2].base_url: is required",
            "10: upstreams[2].api_key: `${EMPTY}` is empty",
            "11: upstreams[2].timeouts.connect: `1` is not DURATION",
            "11: upstreams[2].timeouts.idel: unknown key (did you mean `idle`?)",
        ],
    ),
    (
        "upstreams: [{name: up, base_url: 'https://u'}]\nmodels:\n- id: a\n  aliases: [b, a]\n  \
         context_length: 1\n  max_output_tokens: 0\n  upstreams: [upp]\n- id: b\n  \
         context_length: 1.5\n  upstreams: [up, up]\n  price:\n    currency: usd\n    \
         input: 1\n    output: -1\n- 5\n",
        &[
            "3: models[0].price: is required; a model without a price would be free",
            "4: models[0].aliases[1]: `a` is already at models[0].id",
            "6: models[0].max_output_tokens: must be from 1 to 1000000000",
            "7: models[0].upstreams[0]: there is no upstream `upp` (did you mean `up`?)",
            "8: models[1].id: `b` is already at models[0].aliases[0]",
            "8: models[1].max_output_tokens: is required",
            "9: models[1].context_length: `1.5` is not a whole number from 0 on",
            "10: models[1].upstreams[1]: `up` is already at models[1].upstreams[0]",
            "12: models[1].price.currency: a price in usd needs `btc_usd` or `btc_usd_feed`",
            "14: models[1].price.output: must not be negative",
            "15: models[2]: expected a mapping, found a number",
        ],
    ),
    (
        "models:\n- id: ''\n  context_length: 1\n  max_output_tokens: 1\n  price:\n    currency: \
         eur\n    input: .nan\n    output: 0.1234567891\n    request: 1e9\n",
        &[
            "2: models[0].id: is required",
            "2: models[0].upstreams: is required: the upstreams that serve this model",
            "6: models[0].price.currency: `eur` is not one of `sat`, `usd`",
            "7: models[0].price.input: `NaN` is not a number like 0.15, without an exponent",
            "8: models[0].price.output: `0.1234567891` has more than nine decimals",
            "9: models[0].price.request: `1e9` is not a number like 0.15, without an exponent",
        ],
    ),
];

#[test]
fn a_secret_in_the_wrong_place_is_not_repeated() {
    for text in [
        "upstreams: sk-secret-1\n",
        "listen: sk-secret-1\n",
        "mints: [sk-secret-1]\n",
        "fleet: {redis: sk-secret, postgres: 'http://sk-secret@h'}\n",
    ] {
        let report = parse(text).unwrap_err().to_string();
        assert!(!report.contains("sk-secret"), "{report}");
    }
}

#[test]
fn a_file_of_nothing_but_mistakes_ends() {
    let mistakes = parse(&(0..500).map(|n| format!("k{n}: 1\n")).collect::<String>()).unwrap_err();
    assert_eq!(mistakes.all.len(), 100);
}

#[test]
fn a_file_that_is_not_there_is_no_mistake_of_its_text() {
    let directory = tempfile::tempdir().unwrap();
    let loaded = Config::load(&directory.path().join("none.yaml"));
    assert!(matches!(loaded, Err(NotLoaded::Unreadable { .. })));
}
