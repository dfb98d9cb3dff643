//! What the events of a stream have said so far.

use std::ops::Range;

use crate::json::Object;
use crate::route::Route;

use super::dialect::{self, Dialect, Kind, Seen};
use super::items::{self, Made};
use super::object::Figures;
use super::{Counts, Delivered, Usage};

/// What was concluded, event by event. Small, so that an event can be taken back.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reading {
    route: Route,
    /// All that usage objects said; of a message the later ones add to the earlier.
    figures: Figures,
    /// What they counted.
    known: Counts,
    /// Whether that counts the whole answer so far: no text came after it.
    is_total: bool,
    made: Made,
    pub(super) delivered: Delivered,
    pub(super) is_done: bool,
    pub(super) is_errored: bool,
}

/// An event that had to be looked at closely.
pub(super) struct Sight<'d> {
    pub(super) object: Object<'d>,
    pub(super) has_error: bool,
    pub(super) usage: Option<Place<'d>>,
    /// The totals that its usage stands for.
    pub(super) totals: Option<Counts>,
}

/// A usage as written, and where in the data it stands.
pub(super) struct Place<'d> {
    pub(super) raw: &'d str,
    pub(super) at: Range<usize>,
}

impl Reading {
    pub(super) fn new(route: Route) -> Self {
        Self {
            route,
            figures: Figures::default(),
            known: Counts::NONE,
            is_total: false,
            made: Made::default(),
            delivered: Delivered::default(),
            is_done: false,
            is_errored: false,
        }
    }

    pub(super) fn dialect(&self) -> Dialect {
        Dialect::of(self.route)
    }

    pub(super) fn usage(&self, delivered: Delivered) -> Usage {
        let known = self.known();
        // The cost of a part says nothing of the whole.
        let cost_nano_usd = known.cost_nano_usd.filter(|_| self.is_total);
        Usage::of(Counts { cost_nano_usd, ..known }, self.is_total, delivered)
    }

    fn known(&self) -> Counts {
        let web_searches = self.made.web_searches.max(self.known.web_searches);
        Counts { images: self.made.images, web_searches, ..self.known }
    }

    /// Reads the data of an event. Most are only looked through; `hides` says that one with
    /// `usage: null` is wanted too.
    pub(super) fn read<'d>(&mut self, data: &'d str, hides: bool) -> Option<Sight<'d>> {
        let seen = dialect::look(self.dialect(), data);
        if seen.delivers() {
            self.delivered.events += 1;
            self.delivered.text_bytes += seen.text_bytes;
            self.is_total &= seen.text_bytes == 0;
        }
        self.is_done |= seen.kind.ends();
        self.is_errored |= seen.kind.fails();
        self.made.images += u64::from(seen.kind == Kind::Image);
        let wanted = seen.usage || seen.error || seen.counted_item || seen.null_usage && hides;
        match wanted || self.tells_the_whole(&seen) {
            true => self.look_closely(data, &seen),
            false => None,
        }
    }

    /// The same of an event that was not held, from the little that was kept of it. That it was
    /// delivered is counted already.
    pub(super) fn read_kept(&mut self, kept: &str) -> Option<Counts> {
        let delivered = self.delivered;
        let totals = self.read(kept, false).and_then(|sight| sight.totals);
        self.delivered = delivered;
        totals
    }

    /// Takes back that the text of an event was delivered, as it was before it.
    pub(super) fn undeliver(&mut self, before: &Self) {
        self.delivered = before.delivered;
        self.is_total |= before.is_total;
    }

    fn tells_the_whole(&self, seen: &Seen) -> bool {
        self.route == Route::Responses && matches!(seen.kind, Kind::End | Kind::Failure)
    }

    fn look_closely<'d>(&mut self, data: &'d str, seen: &Seen) -> Option<Sight<'d>> {
        let object = Object::read(data).ok()?;
        let has_error = object.last("error").is_some_and(|error| error.raw != "null");
        self.is_errored |= has_error;
        if let (Kind::Item, Some(item)) = (seen.kind, object.last("item")) {
            self.made = self.made.plus(items::of_item(item.raw));
        }
        let response = object.last("response").filter(|_| self.tells_the_whole(seen));
        if let Some(response) = response.and_then(|response| Object::read(response.raw).ok()) {
            self.made = self.made.max(items::of_response(&response));
        }
        let usage = self.place(&object);
        let totals = usage.as_ref().and_then(|usage| self.take(usage.raw, seen));
        Some(Sight { object, has_error, usage, totals })
    }

    /// Where the usage of an event stands in it.
    fn place<'d>(&self, object: &Object<'d>) -> Option<Place<'d>> {
        let inside = match self.dialect() {
            Dialect::Responses => Some("response"),
            Dialect::Messages if object.last("usage").is_none() => Some("message"),
            Dialect::Messages | Dialect::Chat | Dialect::Completions | Dialect::Media => None,
        };
        let Some(name) = inside else {
            let usage = object.last("usage")?;
            return Some(Place { raw: usage.raw, at: usage.at.clone() });
        };
        let outer = object.last(name)?;
        let inner = Object::read(outer.raw).ok()?;
        let usage = inner.last("usage")?;
        let (start, end) = (outer.at.start + usage.at.start, outer.at.start + usage.at.end);
        Some(Place { raw: usage.raw, at: start..end })
    }

    /// Takes what a usage object counts. If those are totals: they, with what was made.
    fn take(&mut self, usage: &str, seen: &Seen) -> Option<Counts> {
        let dialect = self.dialect();
        let figures = Figures::read(usage)?;
        self.figures = match dialect {
            Dialect::Messages => figures.after(self.figures),
            _ => figures,
        };
        let may_be_total = match dialect {
            Dialect::Responses => self.tells_the_whole(seen),
            Dialect::Messages => seen.kind != Kind::Start && figures.tells_output(),
            Dialect::Chat | Dialect::Completions | Dialect::Media => true,
        };
        let totals = self.figures.counts(self.route).filter(|_| may_be_total);
        if totals.is_some() || dialect == Dialect::Messages {
            self.known = self.figures.known(self.route);
            self.is_total = totals.is_some();
        }
        totals.map(|_| self.known())
    }
}
