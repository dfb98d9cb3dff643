//! Bugs in what the embedded ledger writes.

/// What goes wrong, and a trigger that undoes a write. The ledger
/// goes on from memory until it crashes.
pub(crate) const IN_EMBEDDED: &[(&str, &str)] = &[
    (
        "a deposit is credited and not written down",
        "CREATE TRIGGER IF NOT EXISTS bug AFTER INSERT ON deposits BEGIN DELETE FROM deposits WHERE id = NEW.id; END",
    ),
    (
        "an end is not written down",
        "CREATE TRIGGER IF NOT EXISTS bug AFTER UPDATE ON reservations WHEN NEW.how IS NOT NULL
         BEGIN UPDATE reservations SET how = NULL WHERE id = NEW.id; END",
    ),
    (
        "a receipt names less than was spent",
        "CREATE TRIGGER IF NOT EXISTS bug AFTER UPDATE ON reservations WHEN NEW.spent > 0
         BEGIN UPDATE reservations SET spent = spent - 1 WHERE id = NEW.id; END",
    ),
    (
        "what has accrued is not written down",
        "CREATE TRIGGER IF NOT EXISTS bug AFTER UPDATE ON reservations WHEN NEW.accrued > 0
         BEGIN UPDATE reservations SET accrued = 0 WHERE id = NEW.id; END",
    ),
    (
        "a withdrawal is not ended on disk",
        "CREATE TRIGGER IF NOT EXISTS bug AFTER UPDATE ON withdrawals WHEN NEW.state = 'committed'
         BEGIN UPDATE withdrawals SET state = 'begun' WHERE id = NEW.id; END",
    ),
    (
        "what ended is missing in the history",
        "CREATE TRIGGER IF NOT EXISTS bug AFTER UPDATE ON reservations WHEN NEW.nth > 0
         BEGIN UPDATE reservations SET nth = 0 WHERE id = NEW.id; END",
    ),
    (
        "a history is counted anew with the process",
        "CREATE TRIGGER IF NOT EXISTS bug AFTER INSERT ON accounts WHEN NEW.entries > 0
         BEGIN UPDATE accounts SET entries = 0 WHERE id = NEW.id; END",
    ),
    (
        "a child belongs to nobody when the process has died",
        "CREATE TRIGGER IF NOT EXISTS bug AFTER INSERT ON accounts WHEN NEW.parent IS NOT NULL
         BEGIN UPDATE accounts SET parent = NULL WHERE id = NEW.id; END",
    ),
    (
        "a window is forgotten with the process",
        "CREATE TRIGGER IF NOT EXISTS bug AFTER INSERT ON accounts WHEN NEW.requests_count > 0
         BEGIN UPDATE accounts SET requests_count = 0 WHERE id = NEW.id; END",
    ),
    (
        "what was asked once is forgotten with the process",
        "CREATE TRIGGER IF NOT EXISTS bug AFTER INSERT ON once BEGIN DELETE FROM once WHERE id = NEW.id; END",
    ),
    (
        "a kept answer is not written down",
        "CREATE TRIGGER IF NOT EXISTS bug AFTER INSERT ON once WHEN NEW.answer IS NOT NULL
         BEGIN UPDATE once SET answer = NULL WHERE id = NEW.id; END",
    ),
];
