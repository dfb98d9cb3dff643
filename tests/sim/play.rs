//! Plays a story on a backend and on the book side by side, and looks at the backend's rows
//! after every step.

use nutgate::clock::Clock;
use nutgate::ledger::{HISTORY_PAGE_MAX, Renewal};
use nutgate::money::Msat;

use crate::auditor::Auditor;
use crate::command::{Command, Known, Step};
use crate::oracle::Oracle;
use crate::story::Story;
use crate::subject::Subject;

/// Where a backend went wrong, and how.
#[derive(Debug)]
pub(crate) struct Broken {
    pub(crate) step: usize,
    pub(crate) how: String,
}

/// Plays `steps` from the beginning.
pub(crate) async fn play<S: Subject>(
    story: &Story,
    steps: &[Step],
    subject: &mut S,
) -> Result<(), Broken> {
    let clock = Clock::manual(story.begins);
    subject.fresh(&clock).await;
    let mut table = Table {
        story,
        oracle: Oracle::new(clock.clone()),
        auditor: Auditor::default(),
        clock,
        subject,
    };
    for (at, step) in steps.iter().enumerate() {
        table.step(step).await.map_err(|how| Broken { step: at, how })?;
    }
    let last = steps.len().saturating_sub(1);
    for account in &story.accounts {
        for look in [
            Command::Family(account.clone()),
            Command::History(account.clone(), None, HISTORY_PAGE_MAX),
        ] {
            table.say(&look).await.map_err(|how| Broken { step: last, how })?;
        }
    }
    Ok(())
}

struct Table<'s, S> {
    story: &'s Story,
    clock: Clock,
    oracle: Oracle,
    auditor: Auditor,
    subject: &'s mut S,
}

impl<S: Subject> Table<'_, S> {
    async fn step(&mut self, step: &Step) -> Result<(), String> {
        match step {
            Step::Say(command) => self.say(command).await?,
            Step::SayTwice { command, crash_between } => {
                self.say(command).await?;
                if *crash_between {
                    self.subject.crash().await;
                }
                self.say(command).await?;
            }
            Step::SetClock(to) => self.clock.set(*to),
            Step::Crash => self.subject.crash().await,
        }
        let mut rows = self.subject.rows(&self.story.accounts).await?;
        rows.open.sort();
        rows.check()?;
        self.auditor.check(&rows)?;
        let expected = self.oracle.rows()?;
        if rows != expected {
            return Err(format!("its rows are {rows:?}\nand the book's {expected:?}"));
        }
        Ok(())
    }

    async fn say(&mut self, command: &Command) -> Result<(), String> {
        self.exchange(command).await?;
        for Renewal { reservation: id, account, .. } in self.auditor.given_up_by(command) {
            // It has ended, so this asks for its receipt.
            self.exchange(&Command::Release(Known { id, account, amount: Msat::ZERO })).await?;
        }
        Ok(())
    }

    async fn exchange(&mut self, command: &Command) -> Result<(), String> {
        let expected = command.say(&self.oracle).await;
        let answer = command.say(self.subject.ledger()).await;
        if answer != expected {
            return Err(format!("it answers {answer:?}\nand the book {expected:?}"));
        }
        self.auditor.hear(command, &answer)
    }
}

/// As few of the story's steps as still go wrong, and how: what a person can follow.
pub(crate) async fn told_shortly<S: Subject>(
    story: &Story,
    broken: Broken,
    subject: &mut S,
) -> String {
    let Broken { step, mut how } = broken;
    let mut steps = story.steps[..=step].to_vec();
    let mut chunk = steps.len() / 2;
    while chunk > 0 {
        let mut from = 0;
        while from < steps.len() {
            let without = [&steps[..from], &steps[(from + chunk).min(steps.len())..]].concat();
            match play(story, &without, subject).await {
                Err(broken) => {
                    steps = without[..=broken.step].to_vec();
                    how = broken.how;
                }
                Ok(()) => from += chunk,
            }
        }
        chunk /= 2;
    }
    let begins = story.begins.0;
    let short: Vec<String> = steps.iter().map(|step| format!("{step:?}\n")).collect();
    format!(
        "seed {}, step {step}; the same in {} steps, beginning at {begins}:\n{}{how}",
        story.seed,
        short.len(),
        short.concat(),
    )
}
