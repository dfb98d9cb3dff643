//! Who may call: limits of strangers, trusted proxies and the origins of pages.

use super::*;

#[test]
fn proxies_are_addresses_or_ranges_and_a_limit_may_be_none() {
    let text = "guard: {trusted_proxies: [10.0.0.7/8, 192.0.2.1, '2001:db8::/32'], \
                openings_per_minute: 0}\n";
    let guard = parse(text).unwrap().guard;
    let proxies: Vec<String> = guard.trusted_proxies.iter().map(ToString::to_string).collect();
    assert_eq!(proxies, ["10.0.0.0/8", "192.0.2.1/32", "2001:db8::/32"]);
    assert_eq!((guard.openings_per_minute, guard.unknown_keys_per_minute), (0, 60));
}

#[test]
fn origins_are_all_or_those_that_are_listed() {
    assert_eq!(parse("").unwrap().origins, Origins::Any);
    let listed = |text: &str| match parse(&format!("cors: {{origins: {text}}}")).unwrap().origins {
        Origins::Listed(origins) => origins,
        Origins::Any => panic!("{text} is not every origin"),
    };
    assert!(listed("[]").is_empty());
    for origin in ["https://a.example", "http://127.0.0.1:3000", "http://[::1]:1", "app://x"] {
        assert_eq!(listed(&format!("['{origin}']")), [origin]);
    }
}

#[test]
fn every_mistake_about_callers_is_reported() {
    check_mistakes(&[
        (
            "guard:\n  trusted_proxies: [10.0.0.1/33, '::ffff:10.0.0.0/104', 10.0.0.7]\n  \
             unpaid_per_minute: 2_000_000_000\n",
            &[
                "2: guard.trusted_proxies[0]: `10.0.0.1/33` is not an address like `10.0.0.7`, or \
                 a range of them like `10.0.0.0/8`",
                "2: guard.trusted_proxies[1]: `::ffff:10.0.0.0/104` is IPv4 in the clothes of \
                 IPv6; write it as IPv4",
                "3: guard.unpaid_per_minute: must be from 0 to 1000000000",
            ],
        ),
        (
            "guard: {unpaid_body_bytes_max: 10_000_000_000}",
            &["1: guard.unpaid_body_bytes_max: must be from 0 to 4294967296"],
        ),
        (
            "cors:\n  origins:\n  - '*'\n  - 'https://a.example/'\n  - null\n  - 'https://b'\n  \
             - 'https://b'\n",
            &[
                "3: cors.origins[0]: `*` is every origin, and stands alone",
                "4: cors.origins[1]: `https://a.example/` is not an origin as browsers send it, \
                 like `https://app.example.com`",
                "5: cors.origins[2]: is empty",
                "7: cors.origins[4]: `https://b` is already at cors.origins[3]",
            ],
        ),
    ]);
    for wrong in ["https://a:443", "http://a:80", "HTTPS://a", "https://u@a", "a.example", "null"] {
        let mistakes = parse(&format!("cors: {{origins: ['{wrong}']}}")).unwrap_err();
        assert_eq!(mistakes.all.len(), 1, "{wrong}");
    }
}
