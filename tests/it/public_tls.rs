//! TLS on the public listener: the versions of HTTP that clients choose, and certificates that are
//! replaced while the gateway runs.

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rcgen::{CertificateParams, KeyPair};
use reqwest::Method;

use crate::live::comment;
use crate::support::{
    LOOK_AGAIN, Misbehaviour, PRICE, Pay, Setting, Site, Way, World, ask_http1, asking, chat,
    model_of, prompt_tokens, replace, shown, streamed, within,
};
use crate::telemetry::value;

const PATH: &str = "/v1/chat/completions";

#[tokio::test]
async fn each_client_is_served_in_the_version_that_it_offers() {
    let site = Site::new();
    let world = World::with(site.setting()).await;
    for (offers, spoken) in
        [(&["h2", "http/1.1"][..], Some("h2")), (&["http/1.1"], Some("http/1.1")), (&[], None)]
    {
        let stream = site.handshake(&world, offers).await;
        let chosen = stream.get_ref().1.alpn_protocol().map(<[u8]>::to_vec);
        assert_eq!(chosen.as_deref(), spoken.map(str::as_bytes));
    }
    // A plain client is not understood, and harms nobody.
    let mut raw = world.raw().await;
    raw.send("GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n").await;
    assert!(!String::from_utf8_lossy(&raw.rest().await).contains("200"));
    let (answer, cost) = world.buy(Way::Key, &chat("demo")).await;
    answer.expect(200);
    assert_eq!(cost, PRICE.cost(7, 20));
}

#[tokio::test]
async fn http_1_1_in_tls_has_trailers_too() {
    let site = Site::new();
    let world = World::with(site.setting()).await;
    let purse = world.purse(Way::XCashu).await;
    let mut request = asking(&world, Method::POST, PATH, purse.pay(), streamed("demo").to_string());
    request.headers_mut().extend([
        ("te".parse().unwrap(), "trailers".parse().unwrap()),
        ("host".parse::<http::HeaderName>().unwrap(), "localhost".parse().unwrap()),
    ]);
    let stream = site.handshake(&world, &["http/1.1"]).await;
    let answer = ask_http1(stream, request).await.expect(200);
    assert_eq!(answer.header("trailer"), Some("x-cashu, x-cashu-refund"));
    let text = answer.text();
    let change = comment(&text).expect("the change");
    assert_eq!(answer.trailer("x-cashu"), Some(change));
    assert_eq!(answer.trailer("x-cashu-refund"), Some(change));
    assert_eq!(world.claim(&purse.ecash).await.expect(200).json()["token"], change);
    assert_eq!(world.cost(&purse, None).await, PRICE.cost(7, 20));
}

/// Waits until new connections are shown this certificate.
async fn is_shown(site: &Site, world: &World, certificate: &[u8]) {
    let seen = async {
        while shown(&site.handshake(world, &["h2"]).await) != certificate {
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    };
    within("the new certificate", seen).await;
}

/// Waits until the log says this.
async fn is_logged(world: &World, words: &str) {
    let said = async {
        while !world.gateway.log().contains(words) {
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    };
    within(words, said).await;
}

#[tokio::test]
async fn a_new_certificate_is_shown_to_new_connections_and_open_streams_go_on() {
    let site = Site::new();
    let upstream = Setting::gated().upstream;
    let world = World::with(Setting { upstream, ..site.setting() }).await;
    let key = world.key(100).await;
    let http2 = site.http2(&world).await;
    let body = streamed(&model_of(Misbehaviour::Slow));
    let slow = asking(&world, Method::POST, PATH, (&key).into(), body.to_string());
    let open = http2.send(slow).await.unwrap();
    for _ in 0..2 {
        let new = site.renew();
        is_shown(&site, &world, &new).await;
    }
    world.upstream.open_gate();
    let answer = crate::support::Whole::read(open).await.expect(200);
    assert!(answer.events().is_done());
    // So does the connection.
    let again = asking(&world, Method::POST, PATH, (&key).into(), chat("demo").to_string());
    http2.ask(again).await.expect(200);
    let cost = PRICE.cost(prompt_tokens(&body), 20) + PRICE.cost(7, 20);
    assert_eq!(world.settled(&key).await.spent, cost);
}

#[tokio::test]
async fn a_broken_certificate_is_refused_and_the_old_one_stays() {
    let site = Site::new();
    let world = World::with(site.setting()).await;
    let first = shown(&site.handshake(&world, &["h2"]).await);
    let [chain, key] = site.files();
    let good = std::fs::read_to_string(&chain).unwrap();
    for (file, text, says) in [
        (&chain, "no certificate", "there is no certificate"),
        (&chain, &*good.replacen('M', "!", 1), "the certificate cannot be read"),
        (&key, "nothing", "the old certificate stays"),
        (&key, &KeyPair::generate().unwrap().serialize_pem(), "certificate and key are no pair"),
    ] {
        replace(&chain, &good);
        replace(file, text);
        is_logged(&world, says).await;
        assert_eq!(shown(&site.handshake(&world, &["h2"]).await), first, "{says}");
    }
    std::fs::remove_file(&key).unwrap();
    is_logged(&world, "key.pem: No such file").await;
    assert_eq!(shown(&site.handshake(&world, &["h2"]).await), first);
    let mut old = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    old.not_after = rcgen::date_time_ymd(2001, 1, 1);
    site.renew_as(old);
    is_logged(&world, "the new certificate has expired").await;
    assert_eq!(shown(&site.handshake(&world, &["h2"]).await), first);
    let new = site.renew();
    is_shown(&site, &world, &new).await;
}

#[tokio::test]
async fn sighup_has_the_files_looked_at_and_ends_nothing() {
    let site = Site::new();
    let world = World::with(site.setting()).await;
    let new = site.renew();
    kill(Pid::from_raw(world.gateway.id()), Signal::SIGHUP).unwrap();
    is_shown(&site, &world, &new).await;
    assert_eq!(world.fetch("/healthz", Pay::Nothing).await.status, 200);
}

#[tokio::test]
async fn monitoring_sees_when_the_certificate_ends() {
    let site = Site::new();
    let world = World::with(site.setting()).await;
    let mut params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    params.not_after = rcgen::date_time_ymd(2100, 1, 1);
    let new = site.renew_as(params);
    is_shown(&site, &world, &new).await;
    let ends = value(&world, "nutgate_tls_certificate_expires_seconds").await;
    assert_eq!(ends, Some(4_102_444_800));
}

#[tokio::test]
async fn a_gateway_without_a_certificate_that_it_can_show_does_not_start() {
    let site = Site::new();
    let mut world = World::with(site.setting()).await;
    let [_, key] = site.files();
    replace(&key, &KeyPair::generate().unwrap().serialize_pem());
    assert_eq!(world.gateway.try_restart().await.unwrap_err().code(), Some(2));
    assert!(world.gateway.log().contains("listen.tls: certificate and key are no pair"));
}
