//! Price times usage, to the msat, and nothing else changed on the way.
