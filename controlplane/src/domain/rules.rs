//! What is expected of each noun, one function per noun: violations by field, all at once.
//!
//! Judges one noun alone; what needs other rows is judged by the change transaction. Called by `api`.
