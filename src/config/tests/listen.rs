//! The public listener: plain or in TLS, and every mistake that its files can have.

use super::*;

#[test]
fn a_certificate_is_two_files_that_can_be_read() {
    let pair = "/etc/nutgate/tls/fullchain.pem, key: /etc/nutgate/tls/key.pem";
    let config = parse(&format!("listen: {{tls: {{certificate: {pair}}}, h2c: true}}")).unwrap();
    let tls = config.listen.tls.unwrap();
    assert_eq!(tls.certificate, Path::new("/etc/nutgate/tls/fullchain.pem"));
    assert_eq!(tls.key, Path::new("/etc/nutgate/tls/key.pem"));
    assert!(config.listen.h2c);
    let plain = Config::default().listen;
    assert!(plain.tls.is_none() && !plain.h2c);
}

#[test]
fn every_mistake_in_it_is_reported() {
    check_mistakes(LISTEN_MISTAKES);
}

const LISTEN_MISTAKES: &[(&str, &[&str])] = &[
    (
        "listen: {tls: {key: /ca.pem}}",
        &[
            "1: listen.tls.certificate: is required",
            "1: listen.tls.key: `/ca.pem` holds no PEM PRIVATE KEY",
        ],
    ),
    ("listen:\n  h2c: 1\n", &["2: listen.h2c: expected true or false, found a number"]),
    (
        "listen:\n  tls:\n    certificate: /etc/nutgate/tls/key.pem\n    key: /nowhere\n",
        &[
            "3: listen.tls.certificate: `/etc/nutgate/tls/key.pem` holds no PEM CERTIFICATE",
            "4: listen.tls.key: the file `/nowhere` cannot be read: entity not found",
        ],
    ),
];
