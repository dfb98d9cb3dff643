//! The sources of the dollar rate, and what is offered of an upstream's list.

use std::time::Duration;

use super::super::mistake::KeyPath;
use super::super::scalars::{Lasting, Whole};
use super::super::{
    AGREE_WITHIN_PERCENT_MAX, BtcUsdFeed, Decimal, ListingPolicy, MARKUP_PERCENT_MAX,
    RATE_SOURCES_MAX, RateSource, Secret, schema, url,
};
use super::Checks;

impl Checks<'_> {
    pub(super) fn btc_usd_feed(&mut self, feed: schema::BtcUsdFeed) -> BtcUsdFeed {
        let at = KeyPath::from("btc_usd_feed");
        let sources = self.rate_sources(feed.sources, &at.key("sources"));
        let sources_min = feed.sources_min.map_or(SOURCES_MIN, |Whole(count)| count);
        let sources_min = usize::try_from(sources_min).unwrap_or(usize::MAX);
        let count = sources.len();
        if count > 0 && !(1..=count).contains(&sources_min) {
            let problem =
                format!("must be from 1 to the {count} of `sources`; it is {sources_min}");
            self.found.add(at.key("sources_min"), problem);
        }
        let agree_within_percent = feed.agree_within_percent.unwrap_or(AGREE_WITHIN_PERCENT);
        let most = u128::from(AGREE_WITHIN_PERCENT_MAX) * BILLION;
        if !(1..=most).contains(&agree_within_percent.billionths) {
            let problem = format!("must be above 0 and at most {AGREE_WITHIN_PERCENT_MAX}");
            self.found.add(at.key("agree_within_percent"), problem);
        }
        let (every, stale_after) =
            self.rounds(feed.every, RATE_EVERY, feed.stale_after, RATE_STALE_AFTER, &at);
        BtcUsdFeed { sources, every, agree_within_percent, sources_min, stale_after }
    }

    fn rate_sources(
        &mut self,
        sources: Option<Vec<Option<schema::RateSource>>>,
        at: &KeyPath,
    ) -> Vec<RateSource> {
        let sources = sources.unwrap_or_default();
        if !(1..=RATE_SOURCES_MAX).contains(&sources.len()) {
            self.found.add(at.clone(), format!("must be from 1 to {RATE_SOURCES_MAX} sources"));
        }
        let mut checked = Vec::new();
        for (source, at) in self.elements(sources, at) {
            let given = self.required(source.url, &at.key("url"));
            let insecure = source.allow_insecure.unwrap_or(false);
            let read = given.map(|text| url::source(text.reveal(), insecure));
            let (url, host) =
                read.unwrap_or_else(|| Ok(Default::default())).unwrap_or_else(|why| {
                    self.found.add(at.key("url"), why);
                    Default::default()
                });
            let path = self.required(source.path, &at.key("path")).unwrap_or_default();
            let path: Vec<String> = path.split('.').map(str::to_owned).collect();
            if path.iter().any(String::is_empty) {
                self.found.add(at.key("path"), "is not keys and indices with dots between them");
            }
            checked.push(RateSource { url: Secret::new(url), host, path });
        }
        checked
    }

    pub(super) fn listing_policy(
        &mut self,
        policy: schema::ListingPolicy,
        has_dollar_rate: bool,
        at: &KeyPath,
    ) -> ListingPolicy {
        if !has_dollar_rate {
            self.found
                .add(at.clone(), "lists prices in usd, which need `btc_usd_feed` or `btc_usd`");
        }
        let (every, stale_after) =
            self.rounds(policy.every, LISTED_EVERY, policy.stale_after, LISTED_STALE_AFTER, at);
        let markup_percent = policy.markup_percent.map_or(0, |Whole(percent)| percent);
        if markup_percent > MARKUP_PERCENT_MAX {
            let problem = format!("must be from 0 to {MARKUP_PERCENT_MAX}");
            self.found.add(at.key("markup_percent"), problem);
        }
        let id_prefix = policy.id_prefix.unwrap_or_default();
        if !id_prefix.is_empty() {
            self.word(Some(id_prefix.clone()), &at.key("id_prefix"));
        }
        let all = || vec![Some("*".to_owned())];
        ListingPolicy {
            every,
            stale_after,
            include: self.patterns(policy.include.unwrap_or_else(all), &at.key("include")),
            exclude: self.patterns(policy.exclude.unwrap_or_default(), &at.key("exclude")),
            markup_percent,
            id_prefix,
        }
    }

    fn patterns(&mut self, patterns: Vec<Option<String>>, at: &KeyPath) -> Vec<String> {
        let mut checked = Vec::new();
        for (pattern, at) in self.elements(patterns, at) {
            checked.push(self.word(Some(pattern), &at));
        }
        checked
    }

    /// How often something is fetched, and for how long it is good; the second is longer, or it
    /// would go stale between two fetches that went well.
    fn rounds(
        &mut self,
        every: Option<Lasting>,
        every_default: Duration,
        stale_after: Option<Lasting>,
        stale_default: Duration,
        at: &KeyPath,
    ) -> (Duration, Duration) {
        let every = every.map_or(every_default, |lasting| lasting.0);
        let stale_after = stale_after.map_or(stale_default, |lasting| lasting.0);
        if stale_after < every.saturating_mul(STALE_AFTER_ROUNDS_MIN) {
            let problem = format!("must be at least {STALE_AFTER_ROUNDS_MIN} times `every`");
            self.found.add(at.key("stale_after"), problem);
        }
        (every, stale_after)
    }
}

const BILLION: u128 = 1_000_000_000;

/// One fetch may fail without harm.
const STALE_AFTER_ROUNDS_MIN: u32 = 2;

const SOURCES_MIN: u64 = 2;
const AGREE_WITHIN_PERCENT: Decimal = Decimal { billionths: 2 * BILLION };
const RATE_EVERY: Duration = Duration::from_secs(60);
const RATE_STALE_AFTER: Duration = Duration::from_secs(15 * 60);
const LISTED_EVERY: Duration = Duration::from_secs(3_600);
const LISTED_STALE_AFTER: Duration = Duration::from_secs(24 * 3_600);
