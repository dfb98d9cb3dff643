use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;

/// A name server whose answers are scripted: the first lookup gets the first, and so on; the last
/// one stays.
struct Scripted {
    answers: Vec<Vec<IpAddr>>,
    asked: AtomicUsize,
}

impl Scripted {
    fn new(answers: &[&[&str]]) -> Arc<Self> {
        let read = |text: &&str| text.parse().unwrap();
        let answers = answers.iter().map(|answer| answer.iter().map(read).collect()).collect();
        Arc::new(Self { answers, asked: AtomicUsize::new(0) })
    }
}

#[async_trait]
impl Names for Scripted {
    async fn addresses(&self, _: &str) -> io::Result<Vec<IpAddr>> {
        let asked = self.asked.fetch_add(1, Ordering::Relaxed);
        match self.answers.get(asked.min(self.answers.len().wrapping_sub(1))) {
            Some(addresses) => Ok(addresses.clone()),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }
}

/// Judges a spelling where every name means a public address: only the spelling can be at fault.
async fn judged(text: &str, private: bool) -> Result<Destination, Unwelcome> {
    Guard::with_names(private, Scripted::new(&[&["93.184.215.14"]])).admit(text).await
}

#[tokio::test]
async fn every_spelling_of_an_address_inside_is_refused() {
    let mut wrong = Vec::new();
    for text in REFUSED {
        let judged = judged(text, false).await;
        if judged != Err(Unwelcome::Host) {
            wrong.push((text, judged));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert!(REFUSED.len() >= 100, "{}", REFUSED.len());
}

#[tokio::test]
async fn what_is_no_public_web_address_is_refused() {
    for (text, why) in [
        ("", Unwelcome::Malformed),
        ("example.com", Unwelcome::Malformed),
        ("//example.com/", Unwelcome::Malformed),
        ("https://", Unwelcome::Malformed),
        ("https:///", Unwelcome::Malformed),
        ("file:///etc/passwd", Unwelcome::Malformed),
        ("ftp://example.com/", Unwelcome::Malformed),
        ("gopher://example.com:6379/_FLUSHALL", Unwelcome::Malformed),
        ("data:text/plain,x", Unwelcome::Malformed),
        ("unix:/run/docker.sock", Unwelcome::Malformed),
        ("javascript:alert(1)", Unwelcome::Malformed),
        ("https://[fe80::1%25eth0]/", Unwelcome::Malformed),
        ("https://[fe80::1%eth0]/", Unwelcome::Malformed),
        ("https://[::1", Unwelcome::Malformed),
        ("https://[%3a%3a1]/", Unwelcome::Malformed),
        ("https://127.0.0.256/", Unwelcome::Malformed),
        ("https://1.2.3.4.5/", Unwelcome::Malformed),
        ("https://0x100000000/", Unwelcome::Malformed),
        ("https://a b/", Unwelcome::Malformed),
        ("https://example.com:99999/", Unwelcome::Malformed),
        ("https://exa%00mple.com/", Unwelcome::Malformed),
        ("https://xn--/", Unwelcome::Malformed),
        ("http://example.com/", Unwelcome::Scheme),
        ("HTTP://93.184.215.14/", Unwelcome::Scheme),
        ("https://me@example.com/", Unwelcome::Credentials),
        ("https://me:secret@example.com/", Unwelcome::Credentials),
        ("https://example.com:443@10.0.0.1/", Unwelcome::Credentials),
    ] {
        assert_eq!(judged(text, false).await, Err(why), "{text}");
    }
}

#[tokio::test]
async fn what_is_public_is_accepted_and_written_in_the_one_usual_way() {
    for (text, usual) in [
        ("https://example.com", "https://example.com/"),
        ("HTTPS://Example.COM:443/Hook?a=b", "https://example.com/Hook?a=b"),
        ("https://example.com./hook", "https://example.com./hook"),
        ("https://hooks.example.com:8443/x", "https://hooks.example.com:8443/x"),
        ("https://bücher.de/", "https://xn--bcher-kva.de/"),
        // An `@` behind the host is part of the path, and nothing of the host.
        ("https://example.com\\@127.0.0.1/", "https://example.com/@127.0.0.1/"),
        ("https://localhost.example.com/", "https://localhost.example.com/"),
        ("https://127.0.0.1.example.com/", "https://127.0.0.1.example.com/"),
        ("https://8.8.8.8/", "https://8.8.8.8/"),
        ("https://134744072/", "https://8.8.8.8/"),
        ("https://9.255.255.255/", "https://9.255.255.255/"),
        ("https://11.0.0.0/", "https://11.0.0.0/"),
        ("https://100.63.255.255/", "https://100.63.255.255/"),
        ("https://100.128.0.0/", "https://100.128.0.0/"),
        ("https://126.255.255.255/", "https://126.255.255.255/"),
        ("https://128.0.0.0/", "https://128.0.0.0/"),
        ("https://172.15.255.255/", "https://172.15.255.255/"),
        ("https://172.32.0.0/", "https://172.32.0.0/"),
        ("https://192.167.255.255/", "https://192.167.255.255/"),
        ("https://192.169.0.0/", "https://192.169.0.0/"),
        ("https://198.17.255.255/", "https://198.17.255.255/"),
        ("https://198.20.0.0/", "https://198.20.0.0/"),
        ("https://223.255.255.255/", "https://223.255.255.255/"),
        ("https://[2606:4700::1111]/", "https://[2606:4700::1111]/"),
        ("https://[2001:4860:4860::8888]/", "https://[2001:4860:4860::8888]/"),
        ("https://[::ffff:8.8.8.8]/", "https://[::ffff:808:808]/"),
        ("https://[64:ff9b::8.8.8.8]/", "https://[64:ff9b::808:808]/"),
    ] {
        let destination = judged(text, false).await;
        assert_eq!(destination.as_ref().map(Destination::url), Ok(usual), "{text}");
    }
}

#[tokio::test]
async fn a_private_address_is_accepted_where_configuration_says_so_and_a_clouds_own_never() {
    for text in [
        "http://127.0.0.1:8080/",
        "http://localhost/",
        "https://hooks.corp/",
        "http://[::1]/",
        "http://10.0.0.1/",
        "http://0x7f.1/",
        "https://192.168.1.1/",
        "https://[fd12:3456::1]/",
        "http://example.com/",
    ] {
        assert!(judged(text, true).await.is_ok(), "{text}");
    }
    for text in [
        "http://169.254.169.254/",
        "http://[::ffff:169.254.169.254]/",
        "http://100.100.100.200/",
        "http://168.63.129.16/",
        "http://192.0.0.192/",
        "http://[fd00:ec2::254]/",
        "http://[fd20:ce::254]/",
        "http://[fe80::1]/",
        "http://0.0.0.0/",
        "http://[::]/",
        "http://224.0.0.1/",
        "http://255.255.255.255/",
        "http://[ff02::1]/",
        "http://[2002:7f00:1::]/",
    ] {
        assert_eq!(judged(text, true).await, Err(Unwelcome::Host), "{text}");
    }
    assert_eq!(judged("http://me@10.0.0.1/", true).await, Err(Unwelcome::Credentials));
}

#[tokio::test]
async fn a_name_is_as_public_as_the_least_public_of_its_addresses() {
    let admit = |answers: &[&[&str]]| {
        let guard = Guard::with_names(false, Scripted::new(answers));
        async move { guard.admit("https://hooks.example.com/").await }
    };
    assert!(admit(&[&["93.184.215.14", "2606:4700::1111"]]).await.is_ok());
    for inside in ["10.0.0.1", "127.0.0.1", "169.254.169.254", "::1", "::ffff:10.0.0.1", "fe80::1"]
    {
        assert_eq!(admit(&[&["93.184.215.14", inside]]).await, Err(Unwelcome::Host), "{inside}");
        assert_eq!(admit(&[&[inside, "93.184.215.14"]]).await, Err(Unwelcome::Host), "{inside}");
    }
    // No such name, and a name without an address: no different to who asks.
    assert_eq!(admit(&[]).await, Err(Unwelcome::Host));
    assert_eq!(admit(&[&[]]).await, Err(Unwelcome::Host));
}

#[tokio::test]
async fn a_name_that_changes_its_mind_is_looked_up_once_and_judged_every_time() {
    let names = Scripted::new(&[&["93.184.215.14"], &["127.0.0.1"]]);
    let guard = Guard::with_names(false, names.clone());
    let destination = guard.admit("https://rebinding.example.com/").await.unwrap();
    assert_eq!(names.asked.load(Ordering::Relaxed), 1);
    assert_eq!(destination.addresses, ["93.184.215.14".parse::<IpAddr>().unwrap()]);
    let again = guard.admit("https://rebinding.example.com/").await;
    assert_eq!(again, Err(Unwelcome::Host));
}

/// Spellings of places inside. Where one is a name, the test's name server says that it is public.
const REFUSED: &[&str] = &[
    // This machine.
    "https://127.0.0.1/",
    "https://127.0.0.1:8443/hook",
    "https://127.0.0.1./",
    "https://127.1/",
    "https://127.0.1/",
    "https://127.255.255.254/",
    "https://2130706433/",
    "https://2130706433./",
    "https://0x7f000001/",
    "https://0X7F000001/",
    "https://0x7f.0x0.0x0.0x1/",
    "https://0x7f.1/",
    "https://0x7f.0.1/",
    "https://017700000001/",
    "https://0177.0.0.1/",
    "https://0177.0.0.01/",
    "https://0177.0x0.1/",
    "https://00000177.0.0.1/",
    "https://0x0000007f.0.0.1/",
    "https:127.0.0.1",
    "https:/127.0.0.1/",
    "https:\\\\127.0.0.1\\",
    "https:////127.0.0.1/",
    " https://127.0.0.1/ ",
    "https://127.0.\t0.1/",
    "https://127.0.\n0.1/",
    "https://%31%32%37.0.0.1/",
    "https://127%2e0%2e0%2e1/",
    "https://１２７.０.０.１/",
    "https://１２７。０。０。１/",
    "https://127。0。0。1/",
    "https://127．0．0．1/",
    "https://127｡0｡0｡1/",
    "https://①②⑦.⓪.⓪.①/",
    "https://𝟏𝟐𝟕.𝟎.𝟎.𝟏/",
    "https://127.0.0.1\u{ad}/",
    "https://0x7f.0.0.①/",
    // Every address, which this machine takes for itself.
    "https://0/",
    "https://0.0.0.0/",
    "https://0x0/",
    "https://00.00.00.00/",
    "https://0.1.2.3/",
    // IPv6, and IPv4 in it.
    "https://[::1]/",
    "https://[0:0:0:0:0:0:0:1]/",
    "https://[0000:0000:0000:0000:0000:0000:0000:0001]/",
    "https://[::0001]/",
    "https://[::]/",
    "https://[::127.0.0.1]/",
    "https://[::7f00:1]/",
    "https://[::ffff:127.0.0.1]/",
    "https://[::ffff:7f00:1]/",
    "https://[0:0:0:0:0:ffff:127.0.0.1]/",
    "https://[::FFFF:10.0.0.1]/",
    "https://[::ffff:a9fe:a9fe]/",
    "https://[::ffff:0:127.0.0.1]/",
    "https://[64:ff9b::127.0.0.1]/",
    "https://[64:ff9b::a00:1]/",
    "https://[64:ff9b::169.254.169.254]/",
    "https://[64:ff9b:1::8.8.8.8]/",
    "https://[2002:7f00:1::]/",
    "https://[2002:a00:1::1]/",
    "https://[2002:808:808::]/",
    "https://[2001:0:808:808::1]/",
    "https://[2001:0:4136:e378:8000:63bf:3fff:fdd2]/",
    "https://[2001:2::1]/",
    "https://[2001:10::1]/",
    "https://[2001:db8::1]/",
    "https://[3fff::1]/",
    "https://[5f00::1]/",
    "https://[100::1]/",
    "https://[fe80::1]/",
    "https://[febf::1]/",
    "https://[fec0::1]/",
    "https://[fc00::1]/",
    "https://[fdff:ffff::1]/",
    "https://[fd00:ec2::254]/",
    "https://[fd20:ce::254]/",
    "https://[ff02::1]/",
    "https://[4000::1]/",
    // Private networks, carriers, links and clouds.
    "https://10.0.0.1/",
    "https://10.255.255.255/",
    "https://167772161/",
    "https://012.0.0.1/",
    "https://10.1/",
    "https://172.16.0.1/",
    "https://172.31.255.255/",
    "https://0xac.16.1/",
    "https://192.168.0.1/",
    "https://192.168.257/",
    "https://3232235521/",
    "https://0300.0250.0.1/",
    "https://100.64.0.1/",
    "https://100.127.255.255/",
    "https://100.100.100.200/",
    "https://169.254.169.254/latest/meta-data/",
    "https://169.254.169.254./",
    "https://169.254.1/",
    "https://2852039166/",
    "https://0xa9fea9fe/",
    "https://0251.0376.0251.0376/",
    "https://169.254.43518/",
    "https://168.63.129.16/",
    "https://192.0.0.192/",
    // Nobody's, and everybody's.
    "https://192.0.2.1/",
    "https://192.88.99.1/",
    "https://198.18.0.1/",
    "https://198.19.255.255/",
    "https://198.51.100.7/",
    "https://203.0.113.9/",
    "https://224.0.0.1/",
    "https://239.255.255.255/",
    "https://240.0.0.1/",
    "https://255.255.255.255/",
    "https://4294967295/",
    // Names that are at home in a network.
    "https://localhost/",
    "https://LOCALHOST./",
    "https://localhost:8443/",
    "https://ⓛⓞⓒⓐⓛⓗⓞⓢⓣ/",
    "https://ｌocalhost/",
    "https://local%68ost/",
    "https://hook.localhost/",
    "https://localhost.localdomain/",
    "https://printer.local/",
    "https://metadata.google.internal/computeMetadata/v1/",
    "https://metadata/",
    "https://redis/",
    "https://kubernetes.default.svc.cluster.local/",
    "https://wiki.corp/",
    "https://router.lan/",
    "https://nas.home/",
    "https://router.home.arpa/",
    "https://hidden.onion/",
    "https://a.test/",
    "https://a.invalid/",
];
