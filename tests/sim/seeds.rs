//! How many stories are played, and on how many threads.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use crate::play::{Broken, play, told_shortly};
use crate::story::Story;
use crate::subject::Subject;

/// From the environment: `NUTGATE_SIM_SEEDS`, `NUTGATE_SIM_STEPS`, and `NUTGATE_SIM_FIRST`, the
/// seed to begin with.
pub(crate) struct Plan {
    pub(crate) first: u64,
    pub(crate) seeds: usize,
    pub(crate) steps: usize,
}

impl Plan {
    pub(crate) fn of(seeds: usize) -> Self {
        let set = |name: &str| std::env::var(name).ok().map(|value| value.parse().unwrap());
        Self {
            first: set("NUTGATE_SIM_FIRST").unwrap_or(1),
            seeds: set("NUTGATE_SIM_SEEDS").map_or(seeds, |seeds| usize::try_from(seeds).unwrap()),
            steps: set("NUTGATE_SIM_STEPS").map_or(500, |steps| usize::try_from(steps).unwrap()),
        }
    }
}

/// Plays every seed's story, each thread on a subject of its own.
pub(crate) fn play_all<S: Subject>(plan: &Plan, make: impl AsyncFn() -> S + Sync) {
    let broken = Mutex::new(None);
    on_every_core(plan.seeds, &make, async |subject, nth| {
        if broken.lock().unwrap().is_some() {
            return;
        }
        let story = Story::of(plan.first + nth as u64, plan.steps).await;
        if let Err(how) = play(&story, &story.steps, subject).await {
            *broken.lock().unwrap() = Some(told_shortly(&story, how, subject).await);
        }
    });
    if let Some(how) = broken.into_inner().unwrap() {
        panic!("{how}");
    }
}

/// Runs `work` for every number below `count`, on as many threads as there are cores.
pub(crate) fn on_every_core<S>(
    count: usize,
    make: &(impl AsyncFn() -> S + Sync),
    work: impl AsyncFn(&mut S, usize) + Sync,
) {
    let next = AtomicUsize::new(0);
    let cores = thread::available_parallelism().map_or(1, usize::from);
    thread::scope(|threads| {
        for _ in 0..cores.min(count) {
            threads.spawn(|| {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
                runtime.unwrap().block_on(async {
                    let mut subject = make().await;
                    loop {
                        let nth = next.fetch_add(1, Ordering::Relaxed);
                        if nth >= count {
                            return;
                        }
                        work(&mut subject, nth).await;
                    }
                });
            });
        }
    });
}

/// Looks for `count` bugs, each planted in a subject by `plant`, seed by seed until it is seen.
/// Answers where: the seed, the step, and how it showed.
pub(crate) fn hunt<S: Subject>(
    count: usize,
    make: impl AsyncFn() -> S + Sync,
    plant: impl Fn(&mut S, usize) + Sync,
) -> Vec<Option<(u64, Broken)>> {
    let plan = Plan::of(HUNTED_SEEDS);
    let seen = Mutex::new(Vec::new());
    seen.lock().unwrap().resize_with(count, || None);
    on_every_core(count, &make, async |subject, nth| {
        plant(subject, nth);
        for seed in plan.first..plan.first + plan.seeds as u64 {
            let story = Story::of(seed, plan.steps).await;
            if let Err(broken) = play(&story, &story.steps, subject).await {
                seen.lock().unwrap()[nth] = Some((seed, broken));
                return;
            }
        }
    });
    seen.into_inner().unwrap()
}

const HUNTED_SEEDS: usize = 200;
