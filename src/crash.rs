//! Where the process may die: every step at which money changes hands, enumerated.
//!
//! A debug build told `NUTGATE_CRASH_AT=<step>` kills itself with SIGKILL when it reaches that
//! step, so that a test can restart it and count. In a release build there is nothing here.

/// The steps of every way in which money moves, each way's in the order in which they happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// The redemption is written down, the mint has not been asked.
    RedeemRecorded,
    /// The mint has signed our outputs, we have not stored them.
    SwapAnswered,
    /// The proofs are ours on disk, no account has them.
    Redeemed,
    /// The account is open under the terms that it was asked for with, and has nothing.
    Opened,
    /// The account has the deposit, the redemption does not say so yet.
    Deposited,
    /// The redemption is complete.
    Credited,
    Reserved,
    /// The upstream has the whole request.
    Forwarded,
    /// The upstream has answered with a head.
    Answered,
    /// The first piece of the answer's body has arrived.
    Streaming,
    /// The answer is complete, its cost is not recorded.
    StreamEnded,
    Settled,
    /// The change is out of the account, no proofs are set aside for it.
    WithdrawBegun,
    /// The proofs are set aside, the ledger still holds the withdrawal open.
    ChangeIssued,
    WithdrawCommitted,
    /// The answer has left.
    Delivered,
    /// The answer is kept for a repetition, and not charged.
    AnswerKept,
    /// A call that is to be made once is claimed, and not begun.
    Claimed,
    /// It is done, and its answer is not kept.
    Executed,
    /// An invoice is written down, no mint has been asked for it.
    QuoteRecorded,
    /// The mint's invoice is written down, the client does not have it.
    QuoteOffered,
    /// The mint has the payment, and our outputs are written down.
    QuotePaid,
    /// The mint has signed them, we have not stored that.
    QuoteSigned,
    /// A foreign mint's payment of our mint's invoice is written down, it was not asked to pay.
    MeltRecorded,
    /// The foreign mint says that it has paid, and nothing here does.
    MeltPaid,
    /// A payment is written down, nothing has left the account for it.
    PaymentPlanned,
    /// Its proofs are set aside and it says so, the mint has not been asked to pay.
    PaymentBegun,
    /// The mint has paid or refused, we have not stored that.
    PaymentAnswered,
    /// What came back is ours on disk, the account does not have it.
    PaymentEnded,
    /// Change that nobody claimed is reserved, and still its account's.
    SweepReserved,
    /// It is the gateway's, and nothing says that it was swept.
    SweepSettled,
}

impl Step {
    /// From a token's arrival to its change.
    pub const ALL: [Self; 15] = [
        Self::RedeemRecorded,
        Self::SwapAnswered,
        Self::Redeemed,
        Self::Deposited,
        Self::Credited,
        Self::Reserved,
        Self::Forwarded,
        Self::Answered,
        Self::Streaming,
        Self::StreamEnded,
        Self::Settled,
        Self::WithdrawBegun,
        Self::ChangeIssued,
        Self::WithdrawCommitted,
        Self::Delivered,
    ];

    /// From a token's arrival to the balance of a key with terms that it opens.
    pub const OF_CREATE: [Self; 6] = [
        Self::RedeemRecorded,
        Self::SwapAnswered,
        Self::Redeemed,
        Self::Opened,
        Self::Deposited,
        Self::Credited,
    ];

    /// Of a call that is to be made once, besides its own.
    pub const OF_CALL: [Self; 2] = [Self::Claimed, Self::Executed];

    /// From the wish for an invoice to the balance that it became.
    pub const OF_INVOICE: [Self; 7] = [
        Self::QuoteRecorded,
        Self::QuoteOffered,
        Self::QuotePaid,
        Self::QuoteSigned,
        Self::Redeemed,
        Self::Deposited,
        Self::Credited,
    ];

    /// From a foreign mint's token to the balance of a key with terms that it opens.
    pub const OF_FOREIGN: [Self; 7] = [
        Self::MeltRecorded,
        Self::MeltPaid,
        Self::QuotePaid,
        Self::QuoteSigned,
        Self::Redeemed,
        Self::Deposited,
        Self::Credited,
    ];

    /// From the wish to be paid over Lightning to what comes back of the fee.
    pub const OF_PAYMENT: [Self; 8] = [
        Self::PaymentPlanned,
        Self::WithdrawBegun,
        Self::PaymentBegun,
        Self::PaymentAnswered,
        Self::PaymentEnded,
        Self::Deposited,
        Self::Credited,
        Self::WithdrawCommitted,
    ];

    /// From change that nobody claimed to its being swept.
    pub const OF_SWEEP: [Self; 2] = [Self::SweepReserved, Self::SweepSettled];

    /// The value of `NUTGATE_CRASH_AT` that stops here.
    pub fn name(self) -> String {
        format!("{self:?}")
    }
}

/// Dies here if a test asked for it.
#[cfg(debug_assertions)]
pub fn point(step: Step) {
    use std::sync::OnceLock;
    static AT: OnceLock<Option<String>> = OnceLock::new();
    let at = AT.get_or_init(|| std::env::var("NUTGATE_CRASH_AT").ok());
    if at.as_deref() == Some(step.name().as_str()) {
        let me = nix::unistd::Pid::this();
        // SIGKILL runs no destructor and flushes nothing: the same as an out-of-memory kill.
        let _sent = nix::sys::signal::kill(me, nix::sys::signal::Signal::SIGKILL);
        loop {
            std::thread::park();
        }
    }
}

#[cfg(not(debug_assertions))]
pub fn point(_step: Step) {}
