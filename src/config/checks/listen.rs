//! The public listener: where, in how many threads, and whether in TLS.

use std::path::{Path, PathBuf};

use super::{Checks, THREADS_MAX};
use crate::config::mistake::KeyPath;
use crate::config::{Listen, Tls, schema};

impl Checks<'_> {
    pub(super) fn listen(&mut self, listen: schema::Listen, admin: &schema::Admin) -> Listen {
        if listen.address == admin.address && listen.address.0.port() != 0 {
            let at = KeyPath::from("admin").key("address");
            self.found.add(at, "is the address of `listen`; clients would reach it");
        }
        let at = KeyPath::from("listen");
        let threads = self.size(listen.threads, 0, THREADS_MAX, &at.key("threads"));
        let cores = || std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        Listen {
            address: listen.address.0,
            tls: listen.tls.map(|tls| self.tls(tls, &at.key("tls"))),
            h2c: listen.h2c,
            threads: if threads == 0 { cores() } else { threads },
            drain_max: listen.drain.0,
        }
    }

    fn tls(&mut self, tls: schema::Tls, at: &KeyPath) -> Tls {
        Tls {
            certificate: self.pem(tls.certificate, "CERTIFICATE", &at.key("certificate")),
            key: self.pem(tls.key, "PRIVATE KEY", &at.key("key")),
        }
    }

    /// A file that holds this in PEM. Its content is never repeated.
    fn pem(&mut self, given: Option<String>, what: &str, at: &KeyPath) -> PathBuf {
        let Some(file) = self.required(given, at) else { return PathBuf::new() };
        match self.outside.file(Path::new(&file)) {
            Ok(pem) if pem.contains(&format!("{what}-----")) => {}
            Ok(_) => self.found.add(at.clone(), format!("`{file}` holds no PEM {what}")),
            Err(error) => {
                self.found.add(at.clone(), format!("the file `{file}` cannot be read: {error}"));
            }
        }
        file.into()
    }
}
