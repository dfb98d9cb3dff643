//! The upstreams: where requests are forwarded to.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::super::mistake::KeyPath;
use super::super::scalars::Lasting;
use super::super::{Secret, Upstream, schema};
use super::{Checks, Names};

impl Checks<'_> {
    pub(super) fn upstreams(
        &mut self,
        upstreams: Vec<Option<schema::Upstream>>,
        has_dollar_rate: bool,
    ) -> Vec<Upstream> {
        let mut names = Names::default();
        let mut checked = Vec::new();
        for (upstream, at) in self.elements(upstreams, &KeyPath::from("upstreams")) {
            let name = self.word(upstream.name, &at.key("name"));
            self.unique(&mut names, &name, &at.key("name"));
            let timeouts = upstream.timeouts.unwrap_or_default();
            let or_s = |given: Option<Lasting>, default_s| {
                given.map_or(Duration::from_secs(default_s), |lasting| lasting.0)
            };
            let insecure = upstream.allow_insecure.unwrap_or(false);
            checked.push(Upstream {
                name,
                base_url: self.base_url(upstream.base_url, insecure, &at.key("base_url")),
                api_key: upstream.api_key.unwrap_or_else(|| Secret::new("")),
                ca_file: upstream.ca_file.map(|file| self.ca_file(file, &at.key("ca_file"))),
                connect_timeout: or_s(timeouts.connect, 5),
                first_byte_timeout: or_s(timeouts.first_byte, 300),
                idle_timeout: or_s(timeouts.idle, 60),
                total_timeout: or_s(timeouts.total, 900),
                models: upstream
                    .models
                    .map(|policy| self.listing_policy(policy, has_dollar_rate, &at.key("models"))),
            });
        }
        checked
    }

    fn ca_file(&mut self, file: String, at: &KeyPath) -> PathBuf {
        match self.outside.file(Path::new(&file)) {
            Ok(pem) if pem.contains("-----BEGIN CERTIFICATE-----") => {}
            Ok(_) => self.found.add(at.clone(), format!("`{file}` holds no PEM certificate")),
            Err(error) => {
                self.found.add(at.clone(), format!("the file `{file}` cannot be read: {error}"));
            }
        }
        file.into()
    }
}
