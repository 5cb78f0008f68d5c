//! Text to ids and back, with given merges.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::ops::Range;
use std::panic::resume_unwind;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use rustc_hash::FxHashMap;

use crate::Error;
use crate::piece_map::PieceMap;
use crate::split::Splitter;
use crate::train::{Pair, key};

/// Ids are u32, and two of those are reserved for marks.
pub const MAX_MERGES: usize = (u32::MAX - 2 - 256) as usize;

/// A cap on memory: handcrafted merges can double the length with each token, so 64 of them would
/// ask for more bytes than exist. 65,536 real ones take half a megabyte.
pub const MAX_TOKEN_BYTES: usize = 1 << 26;

/// Up to this many bytes a piece is merged by scanning it over and over, which is quadratic but
/// faster for a short one; a longer one goes through a heap.
const SHORT: usize = 64;

/// No token. The largest id, so that the minimum of several is a token if any of them is.
const NONE: u32 = u32::MAX;

/// Encodes texts, and decodes ids, with given merges.
pub struct Encoder {
    splitter: Splitter,
    pairs: Vec<Pair>,            // what token 256 + i is made of
    merges: FxHashMap<u64, u32>, // pair -> token
    /// The pieces that become a single token. Most pieces of real text do, so most need no merging.
    whole: PieceMap<u32>,
    bytes: Vec<u8>,   // of all tokens, end to end
    ends: Vec<usize>, // where each token ends in `bytes`
}

/// Buffers for merging, reused from piece to piece: no allocation per piece.
#[derive(Default)]
struct Scratch {
    ids: Vec<u32>,
    made: Vec<u32>, // made[i]: the token of (ids[i], ids[i + 1])
    heap: BinaryHeap<Reverse<(u32, usize)>>,
}

/// What the threads of a batch share.
struct Work<'a, T> {
    texts: &'a [T],
    taken: AtomicUsize, // how many texts some thread has taken
    stop: AtomicBool,
}

impl Encoder {
    /// Fails for a merge of ids that do not exist before it, and for a repeated merge.
    pub fn new(merges: &[Pair], splitter: Splitter) -> Result<Self, Error> {
        if merges.len() > MAX_MERGES {
            return Err(Error::TooManyMerges(merges.len()));
        }
        let mut encoder = Self {
            splitter,
            pairs: merges.to_vec(),
            merges: FxHashMap::default(),
            whole: PieceMap::default(),
            bytes: (0..=255).collect(),
            ends: (1..=256).collect(),
        };
        encoder.merges.reserve(merges.len());
        for (index, &(left, right)) in merges.iter().enumerate() {
            let token = 256 + index as u32; // fits: see MAX_MERGES
            for id in [left, right] {
                if id >= token {
                    return Err(Error::UnknownIdInMerge {
                        index,
                        id,
                        known: token,
                    });
                }
            }
            if encoder.merges.insert(key((left, right)), token).is_some() {
                return Err(Error::RepeatedMerge { index, left, right });
            }
            for id in [left, right] {
                let range = encoder.range(id as usize);
                if encoder.bytes.len() + range.len() > MAX_TOKEN_BYTES {
                    return Err(Error::TokensTooLong { index });
                }
                encoder.bytes.extend_from_within(range);
            }
            encoder.ends.push(encoder.bytes.len());
        }
        encoder.find_whole();
        Ok(encoder)
    }

    /// Trained merges make each token from its own bytes, but handcrafted ones may not: an earlier
    /// merge can get in the way. So encode every token to find out.
    fn find_whole(&mut self) {
        let mut scratch = Scratch::default();
        let mut ids = Vec::new();
        let mut whole = PieceMap::default();
        for token in 0..self.vocab_size() {
            let piece = &self.bytes[self.range(token)];
            ids.clear();
            self.merge(piece, &mut ids, &mut scratch);
            if ids == [token as u32] {
                whole.update(piece, |value| *value = token as u32);
            }
        }
        self.whole = whole;
    }

    /// 256 plus the number of merges; ids are below it.
    pub fn vocab_size(&self) -> usize {
        self.ends.len()
    }

    /// The ids of a text. Only a custom pattern can fail.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>, Error> {
        self.encode_with(&self.splitter, text, &mut Scratch::default())
    }

    /// The ids of each text, with `num_threads` threads, the calling one included. That one calls
    /// `tick` before each of its texts; an error from it stops the work.
    pub fn encode_batch<E: From<Error>>(
        &self,
        texts: &[impl AsRef<str> + Sync],
        num_threads: usize,
        tick: impl FnMut() -> Result<(), E>,
    ) -> Result<Vec<Vec<u32>>, E> {
        let work = Work {
            texts,
            taken: AtomicUsize::new(0),
            stop: AtomicBool::new(false),
        };
        let helpers = num_threads.min(texts.len()).saturating_sub(1);
        let mut encoded = vec![Vec::new(); texts.len()];
        thread::scope(|scope| {
            let mut threads = Vec::with_capacity(helpers);
            for _ in 0..helpers {
                let share = || self.encode_share(&work, || Ok::<(), Error>(()));
                // If the system has no thread to give, the others do its part.
                threads.extend(thread::Builder::new().spawn_scoped(scope, share));
            }
            let mut shares = vec![self.encode_share(&work, tick)?];
            for thread in threads {
                shares.push(thread.join().unwrap_or_else(|bug| resume_unwind(bug))?);
            }
            for (index, ids) in shares.into_iter().flatten() {
                encoded[index] = ids;
            }
            Ok(encoded)
        })
    }

    /// One thread's share of a batch: it takes the next text until none is left, so that a thread
    /// with a long one does not hold up the others.
    fn encode_share<E: From<Error>>(
        &self,
        work: &Work<impl AsRef<str>>,
        mut tick: impl FnMut() -> Result<(), E>,
    ) -> Result<Vec<(usize, Vec<u32>)>, E> {
        let splitter = self.splitter.clone();
        let mut scratch = Scratch::default();
        let mut encoded = Vec::new();
        while !work.stop.load(Ordering::Relaxed) {
            let index = work.taken.fetch_add(1, Ordering::Relaxed);
            let Some(text) = work.texts.get(index) else {
                break;
            };
            let ids = tick().and_then(|()| {
                self.encode_with(&splitter, text.as_ref(), &mut scratch)
                    .map_err(E::from)
            });
            if ids.is_err() {
                work.stop.store(true, Ordering::Relaxed);
            }
            encoded.push((index, ids?));
        }
        Ok(encoded)
    }

    fn encode_with(
        &self,
        splitter: &Splitter,
        text: &str,
        scratch: &mut Scratch,
    ) -> Result<Vec<u32>, Error> {
        let mut ids = Vec::with_capacity(text.len() / 4); // English: about 4 bytes per token
        splitter.split(text, |piece| {
            match self.whole.get(piece) {
                Some(token) => ids.push(token),
                None => self.merge(piece, &mut ids, scratch),
            }
            true
        })?;
        Ok(ids)
    }

    /// Appends the ids of a piece: applies the earliest merge that fits, at its leftmost position,
    /// until none fits. That is the order of training, so text is cut as it was then.
    fn merge(&self, piece: &[u8], out: &mut Vec<u32>, scratch: &mut Scratch) {
        if piece.len() <= SHORT {
            self.merge_short(piece, out, scratch);
        } else {
            self.merge_long(piece, out, scratch);
        }
    }

    fn merge_short(&self, piece: &[u8], out: &mut Vec<u32>, scratch: &mut Scratch) {
        let Scratch { ids, made, .. } = scratch;
        ids.clear();
        ids.extend(piece.iter().map(|&byte| u32::from(byte)));
        made.clear();
        made.extend(ids.windows(2).map(|pair| self.token_of(pair[0], pair[1])));
        loop {
            let (mut at, mut token) = (0, NONE);
            for (slot, &candidate) in made.iter().enumerate() {
                if candidate < token {
                    (at, token) = (slot, candidate);
                }
            }
            if token == NONE {
                break;
            }
            ids[at] = token;
            ids.remove(at + 1);
            made.remove(at);
            // Only the two pairs around the new token have changed.
            if at < made.len() {
                made[at] = self.token_of(token, ids[at + 1]);
            }
            if at > 0 {
                made[at - 1] = self.token_of(ids[at - 1], token);
            }
        }
        out.extend_from_slice(ids);
    }

    /// With a heap of possible merges, some out of date: O(n log n). The ids are laid out as in
    /// training (`train::Symbols`): at the first and last byte of a token, a mark at both ends.
    fn merge_long(&self, piece: &[u8], out: &mut Vec<u32>, scratch: &mut Scratch) {
        let Scratch { ids, heap, .. } = scratch;
        ids.clear();
        ids.push(NONE);
        ids.extend(piece.iter().map(|&byte| u32::from(byte)));
        ids.push(NONE);
        heap.clear();
        let possible = |left: u32, right: u32, slot: usize| {
            let token = self.token_of(left, right);
            (token != NONE).then_some(Reverse((token, slot)))
        };
        for (slot, pair) in ids.windows(2).enumerate() {
            heap.extend(possible(pair[0], pair[1], slot));
        }
        while let Some(Reverse((token, slot))) = heap.pop() {
            let (left, right) = self.pairs[token as usize - 256];
            let middle = slot + self.range(left as usize).len();
            if ids[slot] != left || ids[middle] != right {
                continue; // out of date: another merge took one of the two
            }
            let end = middle + self.range(right as usize).len();
            ids[middle - 1] = NONE;
            ids[middle] = NONE;
            ids[slot] = token;
            ids[end - 1] = token;
            let (before, after) = (ids[slot - 1], ids[end]);
            if before != NONE {
                let start = slot - self.range(before as usize).len();
                heap.extend(possible(before, token, start));
            }
            if after != NONE {
                heap.extend(possible(token, after, slot));
            }
        }
        let mut slot = 1;
        while ids[slot] != NONE {
            out.push(ids[slot]);
            slot += self.range(ids[slot] as usize).len();
        }
    }

    /// The token that the pair makes, or NONE.
    #[inline]
    fn token_of(&self, left: u32, right: u32) -> u32 {
        self.merges
            .get(&key((left, right)))
            .copied()
            .unwrap_or(NONE)
    }

    /// Where the token's bytes are.
    #[inline]
    fn range(&self, token: usize) -> Range<usize> {
        token
            .checked_sub(1)
            .map_or(0, |previous| self.ends[previous])..self.ends[token]
    }

    /// The bytes of the ids. Fails for an id that is not a token.
    pub fn decode_bytes(&self, ids: &[u32]) -> Result<Vec<u8>, Error> {
        let mut bytes = Vec::with_capacity(4 * ids.len());
        for &id in ids {
            if id as usize >= self.vocab_size() {
                return Err(Error::UnknownId {
                    id,
                    known: self.vocab_size(),
                });
            }
            bytes.extend_from_slice(&self.bytes[self.range(id as usize)]);
        }
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encoder(merges: &[Pair]) -> Encoder {
        Encoder::new(merges, Splitter::new(None).unwrap()).unwrap()
    }

    #[test]
    fn earliest_merge_first_from_the_left() {
        let (a, b, c) = (97, 98, 99);
        let encoder = encoder(&[(b, c), (a, b), (a, 256)]);
        assert_eq!(encoder.encode("ab abc").unwrap(), [257, 32, 258]);
        assert_eq!(encoder.vocab_size(), 259);
        assert_eq!(encoder.decode_bytes(&[257, 32, 258]).unwrap(), b"ab abc");
        let runs = super::tests::encoder(&[(a, a)]);
        assert_eq!(runs.encode("aaaaa").unwrap(), [256, 256, a]);
    }

    #[test]
    fn a_token_that_its_own_bytes_do_not_make_is_not_a_shortcut() {
        let (a, b, c) = (97, 98, 99);
        // abc: (a, b) goes first, so (a, bc) is never made of it.
        assert_eq!(
            encoder(&[(a, b), (b, c), (a, 257)]).encode("abc").unwrap(),
            [256, c]
        );
    }

    #[test]
    fn short_and_long_merging_agree() {
        // Any merges do: each token with the one before it, and some runs.
        let mut merges: Vec<Pair> = vec![(97, 97), (256, 97), (256, 256), (97, 98), (98, 97)];
        merges.extend([(259, 259), (260, 258), (261, 97), (98, 98), (264, 259)]);
        let encoder = encoder(&merges);
        let mut scratch = Scratch::default();
        for number in 0..1u32 << 14 {
            let piece: Vec<u8> = (0..14)
                .map(|bit| b'a' + (number >> bit & 1) as u8)
                .collect();
            let (mut short, mut long) = (Vec::new(), Vec::new());
            encoder.merge_short(&piece, &mut short, &mut scratch);
            encoder.merge_long(&piece, &mut long, &mut scratch);
            assert_eq!(short, long, "on {piece:?}");
            assert_eq!(encoder.decode_bytes(&long).unwrap(), piece);
        }
    }

    #[test]
    fn a_long_piece_is_not_quadratic() {
        let encoder = encoder(&[(97, 97), (256, 256), (257, 257)]);
        let started = std::time::Instant::now();
        assert_eq!(encoder.encode(&"a".repeat(200_000)).unwrap().len(), 25_000);
        assert!(
            started.elapsed().as_secs() < 10,
            "took {:?}",
            started.elapsed()
        );
    }

    #[test]
    fn batch_is_the_texts_in_order_for_any_number_of_threads() {
        let encoder = encoder(&[(104, 101), (256, 108)]);
        let texts: Vec<String> = (0..100).map(|i| format!("hello {i}")).collect();
        let expected: Vec<_> = texts
            .iter()
            .map(|text| encoder.encode(text).unwrap())
            .collect();
        for num_threads in [0, 1, 2, 8, 200] {
            let batch = encoder.encode_batch(&texts, num_threads, || Ok::<(), Error>(()));
            assert_eq!(batch.unwrap(), expected);
        }
        let stop = || Err(Error::NoThread("stop".into()));
        assert!(encoder.encode_batch(&texts, 2, stop).is_err());
    }

    #[test]
    fn bad_merges_and_ids() {
        let splitter = || Splitter::new(None).unwrap();
        let error = |merges: &[Pair]| Encoder::new(merges, splitter()).err();
        let unknown = Error::UnknownIdInMerge {
            index: 1,
            id: 257,
            known: 257,
        };
        assert_eq!(error(&[(1, 2), (257, 1)]), Some(unknown));
        let repeated = Error::RepeatedMerge {
            index: 1,
            left: 1,
            right: 2,
        };
        assert_eq!(error(&[(1, 2), (1, 2)]), Some(repeated));
        let doubling: Vec<Pair> = (0..64).map(|i| (255 + i, 255 + i)).collect();
        assert!(matches!(
            error(&doubling),
            Some(Error::TokensTooLong { .. })
        ));
        let unknown = Error::UnknownId {
            id: 256,
            known: 256,
        };
        assert_eq!(encoder(&[]).decode_bytes(&[256]), Err(unknown));
    }
}
