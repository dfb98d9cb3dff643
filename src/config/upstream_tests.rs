//! The upstreams of a configuration.

use super::tests::{check_mistakes, parse, reported};
use super::*;

#[test]
fn an_upstream_s_headers_are_secrets_and_a_value_may_have_spaces() {
    let config = parse(
        "upstreams:\n\
         - name: a\n  base_url: https://a\n  auth: x-api-key\n  api_key: 'file:/run/key'\n  \
         http: 2\n  query: a=b&c=%20?\n  strip_unsupported: [logprobs]\n  headers:\n    \
         X-Title: a ${KEY}\n    x-key: file:/run/key\n    anthropic-version: 2023-06-01\n",
    )
    .unwrap();
    let upstream = &config.upstreams[0];
    assert_eq!((upstream.auth, upstream.http), (Auth::XApiKey, Http::Two));
    assert_eq!(upstream.query, "a=b&c=%20?");
    assert_eq!(upstream.strip_unsupported, ["logprobs"]);
    let shown = |(name, value): &(http::HeaderName, Secret)| format!("{name}: {}", value.reveal());
    let headers: Vec<_> = upstream.headers.iter().map(shown).collect();
    let expected = ["x-title: a sk-secret", "anthropic-version: 2023-06-01", "x-key: from-a-file"];
    assert_eq!(headers, expected);
    let shown = format!("{config:?}");
    assert!(!shown.contains("sk-secret") && !shown.contains("from-a-file"));
}

#[test]
fn lists_of_an_upstream_are_bounded() {
    let upstream = |headers: usize, stripped: usize| {
        let names = |count: usize| (0..count).map(|n| format!("x{n}"));
        let headers: Vec<_> = names(headers).map(|name| format!("{name}: v")).collect();
        let stripped: Vec<_> = names(stripped).collect();
        let lists = format!(
            "headers: {{{}}}, strip_unsupported: [{}]",
            headers.join(", "),
            stripped.join(", ")
        );
        reported(&format!("upstreams: [{{name: u, base_url: 'https://u', {lists}}}]"))
    };
    assert_eq!(upstream(32, 32), [""; 0]);
    let mistakes = ["headers: are more than 32", "strip_unsupported: names more than 32"];
    assert_eq!(upstream(33, 33), mistakes.map(|mistake| format!("1: upstreams[0].{mistake}")));
}

#[test]
fn every_mistake_of_an_upstream_is_reported_with_its_line_and_key() {
    check_mistakes(MISTAKES);
}

const MISTAKES: &[(&str, &[&str])] = &[
    (
        "upstreams:\n- name: a\n  base_url: https://u\n  query: '?a=b'\n  auth: basic\n  \
         http: 3\n  headers:\n    Host: x\n    X-A: 1\n    x-b: ' b'\n    x b: c\n    \
         proxy-x: y\n    X-Cashu: z\n    x-c:\n- name: b\n  base_url: https://u\n  \
         auth: api-key\n  \
         headers: {Api-Key: x, X-Q: y, x-q: z}\n  query: a b\n- name: c\n  \
         base_url: https://u\n  auth: none\n  api_key: k\n  \
         strip_unsupported: [seed, model, seed, a.b, '']\n",
        &[
            "4: upstreams[0].query: must be like `name=value&name=value`, encoded as in a URL",
            "5: upstreams[0].auth: `basic` is not one of `bearer`, `api-key`, `x-api-key`, `none`",
            "6: upstreams[0].http: `3` is not one of `auto`, `1`, `2` (did you mean `1`?)",
            "8: upstreams[0].headers.Host: is for the gateway to set",
            "9: upstreams[0].headers.X-A: is text; put it in quotes",
            "10: upstreams[0].headers.x-b: begins or ends in spaces",
            "11: upstreams[0].headers.x b: is not the name of a header",
            "12: upstreams[0].headers.proxy-x: is for the gateway to set",
            "13: upstreams[0].headers.X-Cashu: is for the gateway to set",
            "14: upstreams[0].headers.x-c: expected text, found nothing",
            "15: upstreams[1].api_key: is required where `auth` says how it is sent",
            "18: upstreams[1].headers.Api-Key: is set by `auth`",
            "18: upstreams[1].headers.x-q: `x-q` is already at upstreams[1].headers.X-Q",
            "19: upstreams[1].query: must be like `name=value&name=value`, encoded as in a URL",
            "23: upstreams[2].api_key: is never sent with `auth: none`",
            "24: upstreams[2].strip_unsupported[1]: `model` must stay: without it a request would \
             ask for, or cost, something else",
            "24: upstreams[2].strip_unsupported[2]: `seed` is already at \
             upstreams[2].strip_unsupported[0]",
            "24: upstreams[2].strip_unsupported[3]: is not the name of a parameter",
            "24: upstreams[2].strip_unsupported[4]: is not the name of a parameter",
        ],
    ),
    (
        "upstreams:\n- name: a\n  base_url: https://u\n  health:\n    failures: 0\n    \
         cooldown: 61m\n    probe:\n      path: models\n      every: 5s\n      timeout: 6s\n\
         - name: b\n  base_url: https://u\n  health: {failures: 1001, probe: {}}\n\
         - name: c\n  base_url: https://u\n  health: {failures: 1000, cooldown: 1h, \
         probe: {path: '/a b'}, faliures: 1}\n",
        &[
            "5: upstreams[0].health.failures: must be from 1 to 1000",
            "6: upstreams[0].health.cooldown: must not be longer than `1h`",
            "8: upstreams[0].health.probe.path: must be like `/models`, encoded as in a URL",
            "10: upstreams[0].health.probe.timeout: must not be longer than `every`",
            "13: upstreams[1].health.failures: must be from 1 to 1000",
            "13: upstreams[1].health.probe.path: is required",
            "16: upstreams[2].health.faliures: unknown key (did you mean `failures`?)",
            "16: upstreams[2].health.probe.path: must be like `/models`, encoded as in a URL",
        ],
    ),
];
