//! Byte-level BPE: learns merges from texts, and encodes texts with them.
//!
//! A text is first cut into *pieces* (a word with its leading space, up to two digits, a run of
//! punctuation, ...; `split.rs`). Merges never cross a piece, so training needs only each distinct
//! piece and how often it occurs (`train.rs`), and encoding works on one piece at a time
//! (`encode.rs`); both look pieces up all the time (`piece_map.rs`). `py.rs` puts this before Python
//! and is the only file that knows of it.
//!
//! Ids: 0 to 255 are the raw bytes; merge number i, a pair of earlier ids, makes token 256 + i.
//! Special tokens are not known here.
//!
//! Which pair is merged next: the one that occurs most often; of equals, the one with the smaller
//! (left id, right id). So the merges depend on the texts alone, not on threads or hashing.
//!
//! `cargo test` (no Python needed) tests the core; `tests/test_rustbpe.py` the whole.

#![forbid(unsafe_code)]

pub mod encode;
pub mod piece_map;
#[cfg(feature = "python")]
mod py;
pub mod split;
pub mod train;

use std::fmt;

/// What can be wrong with what a caller hands in. One line each, fit for a user's eyes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Error {
    BadPattern(String),
    SplitFailed(String),
    TooManyPieces,
    NoThread(String),
    UnknownIdInMerge { index: usize, id: u32, known: u32 },
    RepeatedMerge { index: usize, left: u32, right: u32 },
    TooManyMerges(usize),
    TokensTooLong { index: usize },
    UnknownId { id: u32, known: usize },
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BadPattern(why) => write!(f, "pattern is not a valid regular expression: {why}"),
            Self::SplitFailed(why) => write!(
                f,
                "pattern failed on one of the texts: {why}; use a pattern with less backtracking"
            ),
            Self::TooManyPieces => write!(
                f,
                "the distinct pieces of the texts are more than 4 GB together: train on less text"
            ),
            Self::NoThread(why) => {
                write!(
                    f,
                    "cannot start a thread ({why}): use a smaller num_threads"
                )
            }
            Self::UnknownIdInMerge { index, id, known } => write!(
                f,
                "merge {index} uses id {id}, but only ids 0 to {} are made before it",
                known - 1
            ),
            Self::RepeatedMerge { index, left, right } => {
                write!(f, "merge {index} repeats the pair ({left}, {right})")
            }
            Self::TooManyMerges(count) => {
                write!(
                    f,
                    "{count} merges are more than {}, the most",
                    encode::MAX_MERGES
                )
            }
            Self::TokensTooLong { index } => write!(
                f,
                "the tokens up to merge {index} take more than {} bytes together",
                encode::MAX_TOKEN_BYTES
            ),
            Self::UnknownId { id, known } => {
                write!(f, "id {id} is not a token: ids are 0 to {}", known - 1)
            }
        }
    }
}

impl std::error::Error for Error {}
