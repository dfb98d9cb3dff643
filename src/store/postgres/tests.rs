//! What a server that fails does to callers, and what it never does to rows.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use nutgate_sandbox::{Postgres as Server, PostgresOptions};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls_pki_types::CertificateDer;
use tokio::task::JoinSet;

use super::{Address, Session};

use crate::store::{Db, Durability, StoreError, Tx, values};

const SCHEMA: &str = "CREATE TABLE IF NOT EXISTS n (n INTEGER PRIMARY KEY) STRICT;";

async fn opened(server: &Server) -> Db {
    let db = Db::postgres(&server.url()).unwrap();
    db.write(Durability::Disk, |tx| tx.create(SCHEMA)).await.unwrap();
    db
}

async fn insert(db: &Db, n: i64) -> Result<(), StoreError> {
    let work = move |tx: &mut Tx<'_>| tx.execute("INSERT INTO n VALUES (?1)", values![n]);
    db.write(Durability::Disk, work).await.map(|_| ())
}

async fn number(db: &Db, sql: &'static str) -> Result<i64, StoreError> {
    db.write(Durability::Process, |tx| tx.row(sql, values![])?.unwrap().get(0)).await
}

/// The rows, as soon as the server answers.
async fn counted(db: &Db) -> i64 {
    let mut ask = tokio::time::interval(Duration::from_millis(10));
    loop {
        ask.tick().await;
        if let Ok(count) = number(db, "SELECT COUNT(*) FROM n").await {
            return count;
        }
    }
}

#[tokio::test]
async fn work_that_fails_leaves_nothing_also_when_it_hides_its_failure() {
    let server = Server::start(PostgresOptions { fsync: false }).await.unwrap();
    let db = opened(&server).await;
    let fails = |tx: &mut Tx<'_>| {
        tx.execute("INSERT INTO n VALUES (1)", values![])?;
        Err::<(), _>(StoreError("on purpose".to_owned()))
    };
    assert!(db.write(Durability::Disk, fails).await.is_err());
    let hides = |tx: &mut Tx<'_>| {
        tx.execute("INSERT INTO n VALUES (2)", values![])?;
        drop(tx.execute("INSERT INTO n VALUES (2)", values![]));
        Ok(())
    };
    assert!(db.write(Durability::Disk, hides).await.is_err());
    assert_eq!(number(&db, "SELECT COUNT(*) FROM n").await.unwrap(), 0);
    insert(&db, 3).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_killed_under_work_loses_nothing_it_acknowledged_and_is_used_again() {
    let mut server = Server::start(PostgresOptions::default()).await.unwrap();
    let db = opened(&server).await;
    let ended = Arc::new(AtomicBool::new(false));
    let mut writers = JoinSet::new();
    for writer in 0..8 {
        let (db, ended) = (db.clone(), ended.clone());
        writers.spawn(async move {
            let (mut kept, mut refused) = (Vec::new(), 0);
            for n in (writer * 1_000_000..).take_while(|_| !ended.load(Ordering::Relaxed)) {
                match insert(&db, n).await {
                    Ok(()) => kept.push(n),
                    // The server is away: others get their turn on this machine.
                    Err(_) => {
                        refused += 1;
                        tokio::task::yield_now().await;
                    }
                }
            }
            (kept, refused)
        });
    }
    for _ in 0..3 {
        server.restart().await.unwrap();
        let back = counted(&db).await;
        while counted(&db).await == back {}
    }
    ended.store(true, Ordering::Relaxed);
    let mut refused = 0;
    for (kept, away) in writers.join_all().await {
        refused += away;
        for n in kept {
            let count = move |tx: &mut Tx<'_>| {
                let row = tx.row("SELECT COUNT(*) FROM n WHERE n = ?1", values![n])?;
                row.unwrap().get::<i64>(0)
            };
            assert_eq!(db.write(Durability::Process, count).await.unwrap(), 1, "{n}");
        }
    }
    assert!(refused > 0, "the server was never away");
    let connections = "SELECT COUNT(*) FROM pg_stat_activity WHERE application_name = 'nutgate'";
    assert!(number(&db, connections).await.unwrap() <= 4, "one per worker");
}

#[tokio::test]
async fn an_address_where_nobody_is_answers_an_error_in_bounded_time() {
    let mut server = Server::start(PostgresOptions { fsync: false }).await.unwrap();
    let db = opened(&server).await;
    server.kill().await.unwrap();
    assert!(insert(&db, 1).await.is_err());
    assert!(insert(&db, 1).await.is_err());
    server.restart().await.unwrap();
    assert_eq!(counted(&db).await, 0);
    insert(&db, 1).await.unwrap();
}

/// The server speaks TLS from here on, with a certificate of this authority for `localhost`.
async fn certify(server: &Server, authority: &Issuer<'_, KeyPair>) {
    let key = KeyPair::generate().unwrap();
    let names = CertificateParams::new(["localhost".to_owned()]).unwrap();
    let certificate = names.signed_by(&key, authority).unwrap();
    for (file, pem) in [("server.crt", certificate.pem()), ("server.key", key.serialize_pem())] {
        let write = format!("cat > {file} <<END\n{pem}END\nchmod 600 {file}");
        let sql = format!("COPY (SELECT 1 WHERE false) TO PROGRAM '{write}'");
        server.sql(&server.url(), &sql).await.unwrap();
    }
    for sql in ["ALTER SYSTEM SET ssl = on", "SELECT pg_reload_conf()"] {
        server.sql(&server.url(), sql).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_whose_certificate_is_not_its_own_is_not_spoken_to() {
    let server = Server::start(PostgresOptions { fsync: false }).await.unwrap();
    let authority_of = || {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new([]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let certificate = params.self_signed(&key).unwrap().der().clone();
        (certificate, Issuer::new(params, key))
    };
    let ((ours, issuer), (another, _)) = (authority_of(), authority_of());
    certify(&server, &issuer).await;
    let url = |host: &str, mode: &str| {
        format!("{}?sslmode={mode}", server.url().replace("127.0.0.1", host))
    };
    let connects = async |url: String, authority: &CertificateDer<'static>| {
        let address = Address::parse(&url).unwrap().trusting(vec![authority.clone()]);
        let connected = tokio::task::spawn_blocking(move || Session::connect(&address).is_ok());
        connected.await.unwrap()
    };
    let mut ask = tokio::time::interval(Duration::from_millis(10));
    while !connects(url("localhost", "verify-full"), &ours).await {
        // It has not read its files again yet.
        ask.tick().await;
    }
    assert!(connects(url("localhost", "require"), &ours).await);
    assert!(!connects(url("localhost", "verify-full"), &another).await, "of a stranger");
    assert!(!connects(url("localhost", "require"), &another).await, "and that is checked always");
    assert!(!connects(url("127.0.0.1", "verify-full"), &ours).await, "for another name");
}
