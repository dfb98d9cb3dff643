//! The head of an answer, and the connection that it comes by.
