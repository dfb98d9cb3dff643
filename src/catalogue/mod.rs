//! What is on offer now: the price list, which is swapped whole.
//!
//! A [`PriceList`] is made of the models of the configuration, of those that upstreams list, and
//! of what a bitcoin costs. The last two change while the gateway runs: a thread of its own asks
//! for them, puts together a new list from all three and puts it on the [`Shelf`]. A request reads
//! the shelf once and keeps what it found, so nothing that it was priced by changes under it, and
//! no request ever waits for a source.
//!
//! What cannot be asked for any more goes stale, and then it is taken off the shelf by the same
//! thread: readers need no clock. A model whose price is in dollars is refused when nobody knows
//! what a dollar is; one that an upstream once listed is not offered for ever at last year's price.

mod listed;
mod listing;
mod rate;
mod rounds;
mod stock;

use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::Duration;

use arc_swap::ArcSwap;
use futures_util::FutureExt;
use futures_util::future::join_all;

use self::listed::Listed;
use self::rate::Rate;
use self::stock::Stock;
use crate::config::Config;
use crate::fetch::Fetch;
use crate::pricing::PriceList;
use crate::telemetry::Metrics;
use crate::upstream::Upstreams;

/// Where the price list of the moment lies. A clone is the same shelf.
#[derive(Clone, Debug, Default)]
pub struct Shelf(Arc<ArcSwap<PriceList>>);

impl Shelf {
    pub fn new(list: PriceList) -> Self {
        Self(Arc::new(ArcSwap::from_pointee(list)))
    }

    /// The list of this moment, whole, without waiting for anybody.
    pub fn now(&self) -> Arc<PriceList> {
        self.0.load_full()
    }

    /// From now on this one. Those who hold the one before keep it.
    pub fn replace(&self, list: PriceList) {
        self.0.store(Arc::new(list));
    }
}

/// A shelf that is kept up to date.
#[derive(Debug)]
pub struct Catalogue {
    shelf: Shelf,
    /// Ends when everything has been asked for once.
    first_round: Receiver<()>,
}

impl Catalogue {
    /// Puts what the configuration says on a shelf, and begins to ask for the rest: until the
    /// process ends, beside everything else.
    ///
    /// # Errors
    /// An authority's file cannot be read, or there is no thread.
    pub fn open(config: &Config, upstreams: &Upstreams, metrics: &Metrics) -> Result<Self, String> {
        let stock = Arc::new(Stock::new(config));
        let shelf = stock.shelf().clone();
        let (done, first_round) = channel();
        let mut asked = Asked { rate: None, listed: Vec::new() };
        if let (Some(feed), None) = (&config.btc_usd_feed, config.btc_usd_cents) {
            metrics.watch_rate();
            asked.rate = Some(Rate::new(feed.clone(), Fetch::new(None)?, metrics.clone()));
        }
        for (index, upstream) in config.upstreams.iter().enumerate() {
            if let (Some(policy), Some(peer)) = (&upstream.models, upstreams.find(&upstream.name)) {
                let fetch = Fetch::new(upstream.ca_file.as_deref())?;
                let peer = peer.clone();
                let listed = Listed::new(index, upstream, peer, policy, fetch, metrics.clone());
                asked.listed.push(listed);
            }
        }
        if asked.rate.is_some() || !asked.listed.is_empty() {
            let keep = move || asked.keep(&stock, done);
            let started = thread::Builder::new().name("catalogue".to_owned()).spawn(keep);
            started.map_err(|error| error.to_string())?;
        }
        Ok(Self { shelf, first_round })
    }

    /// Waits until everything has been asked for once, so that a fresh gateway sells at once what
    /// it can; not for long: without it the gateway sells the rest.
    pub fn settled(self) -> Shelf {
        // Nothing is ever sent; the senders go when their first round has come to its end.
        if self.first_round.recv_timeout(FIRST_ROUND_MAX) == Err(RecvTimeoutError::Timeout) {
            log::warn!("catalogue: not everybody answered in time; starting without them");
        }
        self.shelf
    }
}

/// What is asked for again and again.
struct Asked {
    rate: Option<Rate>,
    listed: Vec<Listed>,
}

impl Asked {
    /// The whole life of the thread. Whoever waits for the first round waits until `done` and all
    /// of its clones are gone.
    fn keep(self, stock: &Stock, done: Sender<()>) {
        let _guard = Guard(stock);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = match runtime {
            Ok(runtime) => runtime,
            Err(error) => return log::error!("catalogue: {error}"),
        };
        let rate = self.rate.map(|rate| rate.run(stock, done.clone()).boxed_local());
        let listed = self.listed.into_iter().map(|it| it.run(stock, done.clone()).boxed_local());
        let all = join_all(rate.into_iter().chain(listed));
        drop(done);
        runtime.block_on(all);
    }
}

/// What nobody keeps up to date any more is not sold: no price outlives the thread that would have
/// said when it is stale.
struct Guard<'s>(&'s Stock);

impl Drop for Guard<'_> {
    fn drop(&mut self) {
        log::error!("catalogue: ended; prices in usd and listed models are withdrawn");
        self.0.withdraw();
    }
}

const FIRST_ROUND_MAX: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reader_keeps_the_list_that_it_took() {
        let shelf = Shelf::new(PriceList::new(&[], Some(1)));
        let (same, before) = (shelf.clone(), shelf.now());
        shelf.replace(PriceList::new(&[], Some(2)));
        assert_eq!(before.btc_usd_cents, Some(1));
        assert_eq!(same.now().btc_usd_cents, Some(2));
    }

    #[test]
    fn with_nothing_to_ask_for_nobody_waits() {
        let catalogue =
            Catalogue::open(&Config::default(), &Upstreams::default(), &Metrics::default())
                .unwrap();
        assert!(catalogue.settled().now().offers.is_empty());
    }
}
