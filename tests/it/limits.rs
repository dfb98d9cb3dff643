//! What is asked for, refused and reserved, before anything is sold.
