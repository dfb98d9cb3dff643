//! A gateway that dies at a step, where a debug build does so when it is asked.

use std::os::unix::process::ExitStatusExt;

use nix::sys::signal::Signal;
use nutgate::crash::Step;

use super::World;

pub(crate) async fn start_to_die_at(world: &mut World, step: Step) {
    world.gateway.set_env(CRASH_AT, &step.name());
    world.gateway.restart().await;
}

pub(crate) async fn assert_killed(world: &mut World, step: Step) {
    let status = world.gateway.ended().await;
    assert_eq!(status.signal(), Some(Signal::SIGKILL as i32), "at {step:?}: {status}");
}

/// Names the step.
pub(crate) const CRASH_AT: &str = "NUTGATE_CRASH_AT";
