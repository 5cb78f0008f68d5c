//! Byte-level BPE: learns merges from texts, and encodes texts with them.
//!
//! A text is first split into *pieces* (a word with its leading space, up to two digits, a run of
//! punctuation, ...; `split.rs`). Merges never cross the border of a piece. So training needs only
//! the distinct pieces and their counts (`train.rs`), and encoding works on one piece at a time
//! (`encode.rs`); both look up pieces all the time (`piece_map.rs`). `py.rs` exposes this to Python
//! and is the only file that knows about it.
//!
//! Ids: 0 to 255 are the raw bytes; merge number i, a pair of earlier ids, makes token 256 + i.
//! Special tokens are not known here.
//!
//! The next merge is the pair that occurs most often; among equals, the one with the smaller
//! (left id, right id). So the merges depend on the texts alone, not on threads or hashing.
//!
//! `cargo test` (no Python needed) tests the core, `tests/test_rustbpe.py` the whole.

#![forbid(unsafe_code)]
#![deny(missing_docs)]

pub mod encode;
pub mod piece_map;
#[cfg(feature = "python")]
mod py;
pub mod split;
pub mod train;

use std::fmt;

/// What can be wrong with a caller's arguments. Each displays as one line, fit for users.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs)] // of the fields: their names say it
pub enum Error {
    /// The pattern is not a regular expression: why.
    BadPattern(String),
    /// The pattern gave up on a text: why.
    SplitFailed(String),
    /// The distinct pieces do not fit into 32-bit positions.
    TooManyPieces,
    /// The system has no thread to give: why.
    NoThread(String),
    /// A merge uses an id that does not exist yet.
    UnknownIdInMerge { index: usize, id: u32, known: u32 },
    /// Two merges of one pair.
    RepeatedMerge { index: usize, left: u32, right: u32 },
    /// More merges than there are ids.
    TooManyMerges(usize),
    /// Tokens of more bytes than memory should be asked for.
    TokensTooLong { index: usize },
    /// An id to decode that is not a token.
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
                "the distinct pieces of the texts exceed 4 GB: train on less text"
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
                    "{count} merges exceed the maximum of {}",
                    encode::MAX_MERGES
                )
            }
            Self::TokensTooLong { index } => write!(
                f,
                "the tokens up to merge {index} take more than {} bytes in total",
                encode::MAX_TOKEN_BYTES
            ),
            Self::UnknownId { id, known } => {
                write!(f, "id {id} is not a token: ids are 0 to {}", known - 1)
            }
        }
    }
}

impl std::error::Error for Error {}
