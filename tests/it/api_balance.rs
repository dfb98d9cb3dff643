//! The payment endpoints: ecash becomes a key, a key shows and gives back what it has.
