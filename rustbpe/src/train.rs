//! Texts to merges: count the distinct pieces, then merge the most common pair over and over.
//!
//! Counting first is what makes training cheap. English has few distinct words: a gigabyte of it
//! is a few hundred thousand pieces, and the merge loop never looks at the text again.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::panic::resume_unwind;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use rustc_hash::FxHashMap;

use crate::Error;
use crate::piece_map::PieceMap;
use crate::split::Splitter;

/// Each distinct piece and how often it occurs.
pub type PieceCounts = PieceMap<u64>;

/// Two ids that stand next to each other.
pub type Pair = (u32, u32);

/// A batch is handed over when it has this many bytes: enough that handing over costs nothing, few
/// enough that the batches in flight take little memory.
const BATCH_BYTES: usize = 1 << 20;

/// The longest wait before the caller is asked whether to continue (Ctrl-C).
const TICK: Duration = Duration::from_millis(50);

/// A thread cannot be joined with a time limit, so its end is polled this often.
const POLL: Duration = Duration::from_millis(1);

/// Texts laid end to end: two allocations per megabyte instead of one per text.
#[derive(Default)]
pub struct Batch {
    text: String,
    ends: Vec<usize>, // where each text ends
}

impl Batch {
    /// Appends a text.
    pub fn push(&mut self, text: &str) {
        self.text.push_str(text);
        self.ends.push(self.text.len());
    }

    /// Whether it is large enough to hand over.
    pub fn is_full(&self) -> bool {
        // Empty texts take room too: an endless stream of them must not grow one batch forever.
        self.text.len() + self.ends.len() >= BATCH_BYTES
    }

    /// Whether it has no texts.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    fn texts(&self) -> impl Iterator<Item = &str> {
        let starts = std::iter::once(0).chain(self.ends.iter().copied());
        starts
            .zip(&self.ends)
            .map(|(start, &end)| &self.text[start..end])
    }

    fn clear(&mut self) {
        self.text.clear();
        self.ends.clear();
        self.text.shrink_to(2 * BATCH_BYTES); // one huge text must not keep its memory forever
    }
}

/// Counts the pieces of all texts, with `num_threads` threads in addition to the calling one.
///
/// `fill` fills an empty batch and leaves it empty at the end of the texts. It runs on the calling
/// thread (Python wants that) while the others count. `tick` runs while that thread waits. An error
/// from either stops the work at once.
pub fn count_pieces<E: From<Error>>(
    splitter: &Splitter,
    num_threads: usize,
    mut fill: impl FnMut(&mut Batch) -> Result<(), E>,
    mut tick: impl FnMut() -> Result<(), E>,
) -> Result<PieceCounts, E> {
    // Batches go round in a circle: empty ones come here to be filled, full ones go to whichever
    // thread is free. Their number is fixed, so slow counting holds back the reading instead of
    // filling the memory.
    let num_threads = num_threads.max(1);
    let (full_sender, full) = mpsc::channel();
    let (empty_sender, empty) = mpsc::channel();
    for _ in 0..2 * num_threads {
        let _ = empty_sender.send(Batch::default()); // cannot fail: we hold the other end
    }
    let (full, stop) = (&Mutex::new(full), &AtomicBool::new(false));
    thread::scope(move |scope| {
        // The scope waits for its threads however we leave it, so every way out must end them.
        let _stop = StopOnDrop(stop);
        let mut workers = Vec::with_capacity(num_threads);
        for _ in 0..num_threads {
            let (splitter, empty_sender) = (splitter.clone(), empty_sender.clone());
            let work = move || {
                let counted = count_batches(&splitter, full, &empty_sender, stop);
                if counted.is_err() {
                    stop.store(true, Ordering::Relaxed);
                }
                counted
            };
            let spawned = thread::Builder::new().spawn_scoped(scope, work);
            workers.push(spawned.map_err(|e| Error::NoThread(e.to_string()))?);
        }
        drop(empty_sender); // now waiting for an empty batch ends when all threads have
        while !stop.load(Ordering::Relaxed) {
            match empty.recv_timeout(TICK) {
                Err(RecvTimeoutError::Timeout) => tick()?,
                Err(RecvTimeoutError::Disconnected) => break,
                Ok(mut batch) => {
                    fill(&mut batch)?;
                    if batch.is_empty() {
                        break;
                    }
                    let _ = full_sender.send(batch); // cannot fail: `full` outlives the threads
                }
            }
        }
        drop(full_sender); // the threads finish what is in flight, then end
        let mut all = PieceCounts::default();
        for worker in workers {
            while !worker.is_finished() {
                tick()?;
                thread::sleep(POLL);
            }
            let mut some = worker.join().unwrap_or_else(|bug| resume_unwind(bug))?;
            // The smaller map goes into the larger: each entry moved is a look-up.
            if some.len() > all.len() {
                std::mem::swap(&mut all, &mut some);
            }
            some.for_each(|piece, more| all.update(piece, |count| *count += more));
        }
        Ok(all)
    })
}

/// Tells the threads to stop when it goes out of scope.
struct StopOnDrop<'a>(&'a AtomicBool);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// One thread's share: counts batches until no more come. Every thread has a map of its own, since
/// a shared one would make each piece wait for a lock.
fn count_batches(
    splitter: &Splitter,
    full: &Mutex<Receiver<Batch>>,
    empty_sender: &mpsc::Sender<Batch>,
    stop: &AtomicBool,
) -> Result<PieceCounts, Error> {
    let mut counts = PieceCounts::default();
    loop {
        // In a `while let`, the lock would be held during the counting.
        let received = full.lock().map(|full| full.recv());
        let Ok(Ok(mut batch)) = received else {
            return Ok(counts);
        };
        for text in batch.texts() {
            // Asked at each piece: a single text can be a gigabyte.
            splitter.split(text, |piece| {
                counts.update(piece, |count| *count += 1);
                !stop.load(Ordering::Relaxed)
            })?;
        }
        batch.clear();
        let _ = empty_sender.send(batch); // the caller may have left: then nobody needs it
    }
}

/// Marks in `Symbols::ids`: the slot between two pieces, and a byte inside a token.
const BETWEEN: u32 = u32::MAX;
const INSIDE: u32 = u32::MAX - 1;

/// All distinct pieces as one array, one slot per byte, plus one between pieces and at both ends.
///
/// A token's id stands at its first and at its last byte. So the neighbors of a token are one step
/// away on either side (`lens` says how far a token reaches), and a merge costs the same in a piece
/// of any length. " low" with the merges l+o = 256 and 256+w = 257:
///
/// ```text
/// ids: BETWEEN  32  257  INSIDE  257  BETWEEN
/// ```
struct Symbols {
    ids: Vec<u32>,
    pieces: Vec<u32>,  // which piece a slot belongs to
    weights: Vec<u64>, // how often each piece occurs
    lens: Vec<u32>,    // bytes of each token
}

/// A pair's count over all texts, and the slots where its left token starts (ascending). Slots that
/// another merge has changed stay in the list: crossing them out would cost more than checking
/// each slot once, when its pair's turn comes.
#[derive(Default)]
struct Occurrences {
    count: u64,
    slots: Vec<u32>,
}

/// A pair as one number: it sorts like the pair and hashes faster.
pub(crate) fn key((left, right): Pair) -> u64 {
    u64::from(left) << 32 | u64::from(right)
}

fn unkey(key: u64) -> Pair {
    ((key >> 32) as u32, key as u32)
}

/// Learns up to `num_merges` merges; fewer if at some point no pair occurs twice.
///
/// `tick` gets the number of merges made, at least once per merge; its error stops the work.
pub fn learn_merges<E: From<Error>>(
    counts: PieceCounts,
    num_merges: usize,
    mut tick: impl FnMut(usize) -> Result<(), E>,
) -> Result<Vec<Pair>, E> {
    let mut symbols = Symbols::new(counts)?;
    let mut pairs = symbols.pairs();
    // A lazy heap: its counts may be out of date. After the merge that creates it, a pair can only
    // become rarer, so an entry is never too low, and it is enough to check it at the top.
    let mut heap: BinaryHeap<_> = pairs.iter().map(|(&k, p)| (p.count, Reverse(k))).collect();
    let mut merges = Vec::new();
    while merges.len() < num_merges
        && let Some((count, Reverse(pair))) = heap.pop()
    {
        match pairs.get(&pair) {
            None => continue,
            Some(now) if now.count < count => {
                heap.push((now.count, Reverse(pair)));
                continue;
            }
            Some(_) => {}
        }
        let Some(Occurrences { slots, .. }) = pairs.remove(&pair) else {
            continue;
        };
        // New pairs all contain the new token. They wait here until the merge is done everywhere:
        // only then are their counts final, and they can enter the heap.
        let mut made = FxHashMap::default();
        let token = symbols.add_token(unkey(pair));
        // In chunks, because the pair of an early merge can occur millions of times, and Ctrl-C
        // must not wait that long.
        for some in slots.chunks(1 << 16) {
            tick(merges.len())?;
            symbols.merge(unkey(pair), token, some, &mut pairs, &mut made);
        }
        for (pair, mut occurrences) in made {
            if occurrences.count >= 2 {
                occurrences.slots.shrink_to_fit(); // it will wait long: give back the spare room
                heap.push((occurrences.count, Reverse(pair)));
                pairs.insert(pair, occurrences);
            }
        }
        merges.push(unkey(pair));
    }
    tick(merges.len())?;
    Ok(merges)
}

impl Symbols {
    fn new(counts: PieceCounts) -> Result<Self, Error> {
        let mut slots = 1;
        counts.for_each(|piece, _| slots += piece.len() + 1);
        if u32::try_from(slots).is_err() {
            return Err(Error::TooManyPieces);
        }
        let mut ids = Vec::with_capacity(slots);
        let mut pieces = Vec::with_capacity(slots);
        let mut weights = Vec::with_capacity(counts.len());
        counts.for_each(|piece, count| {
            ids.push(BETWEEN);
            ids.extend(piece.iter().map(|&byte| u32::from(byte)));
            pieces.resize(ids.len(), weights.len() as u32); // fits: fewer pieces than slots
            weights.push(count);
        });
        ids.push(BETWEEN);
        Ok(Self {
            ids,
            pieces,
            weights,
            lens: vec![1; 256],
        })
    }

    /// The pairs of bytes that occur at least twice. A merge of what occurs once saves nothing.
    fn pairs(&self) -> FxHashMap<u64, Occurrences> {
        let mut pairs = FxHashMap::<u64, Occurrences>::default();
        for (slot, ids) in self.ids.windows(2).enumerate() {
            if ids[0] != BETWEEN && ids[1] != BETWEEN {
                let weight = self.weights[self.pieces[slot] as usize];
                pairs
                    .entry(key((ids[0], ids[1])))
                    .or_default()
                    .add(slot, weight);
            }
        }
        pairs.retain(|_, pair| pair.count >= 2);
        pairs
    }

    fn add_token(&mut self, (left, right): Pair) -> u32 {
        self.lens
            .push(self.lens[left as usize] + self.lens[right as usize]);
        self.lens.len() as u32 - 1
    }

    /// Merges the pair at `slots`, some of which may be out of date. In "x left right y" the pairs
    /// (x, left) and (right, y) become rarer; (x, token) and (token, y) are new and go into `made`.
    fn merge(
        &mut self,
        (left, right): Pair,
        token: u32,
        slots: &[u32],
        pairs: &mut FxHashMap<u64, Occurrences>,
        made: &mut FxHashMap<u64, Occurrences>,
    ) {
        for &slot in slots {
            // The slot is listed because a token `left` once started there. Tokens only grow, so if
            // that id is still there, it is the start of this token and not the end of another.
            let slot = slot as usize;
            if self.ids[slot] != left {
                continue;
            }
            let middle = slot + self.lens[left as usize] as usize;
            if self.ids[middle] != right {
                continue;
            }
            let end = middle + self.lens[right as usize] as usize;
            let weight = self.weights[self.pieces[slot] as usize];

            let before = self.ids[slot - 1];
            if before != BETWEEN {
                if before == token {
                    // In "aaaa" the second (a, a) removes the (token, a) that the first one made.
                    made.entry(key((before, left))).or_default().count -= weight;
                } else {
                    lower(pairs, key((before, left)), weight);
                }
                let start = slot - self.lens[before as usize] as usize;
                made.entry(key((before, token)))
                    .or_default()
                    .add(start, weight);
            }
            let after = self.ids[end];
            if after != BETWEEN {
                lower(pairs, key((right, after)), weight);
                made.entry(key((token, after)))
                    .or_default()
                    .add(slot, weight);
            }
            self.ids[middle - 1] = INSIDE;
            self.ids[middle] = INSIDE;
            self.ids[slot] = token;
            self.ids[end - 1] = token;
        }
    }
}

impl Occurrences {
    fn add(&mut self, slot: usize, weight: u64) {
        self.count = self.count.saturating_add(weight);
        self.slots.push(slot as u32);
    }
}

/// Forgets the pair once it is too rare: it cannot become common again. This keeps the map small.
fn lower(pairs: &mut FxHashMap<u64, Occurrences>, pair: u64, weight: u64) {
    if let Some(occurrences) = pairs.get_mut(&pair) {
        occurrences.count = occurrences.count.saturating_sub(weight);
        if occurrences.count < 2 {
            pairs.remove(&pair);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn train(texts: &[&str], num_merges: usize, num_threads: usize) -> Vec<Pair> {
        let splitter = Splitter::new(None).unwrap();
        let mut texts = texts.iter();
        let fill = |batch: &mut Batch| {
            // One text per batch, so that the threads have something to share.
            texts.next().into_iter().for_each(|text| batch.push(text));
            Ok::<(), Error>(())
        };
        let counts = count_pieces(&splitter, num_threads, fill, || Ok(())).unwrap();
        learn_merges(counts, num_merges, |_| Ok::<(), Error>(())).unwrap()
    }

    #[test]
    fn most_common_pair_first_and_among_equals_the_smaller() {
        let (a, b, c) = (97, 98, 99);
        assert_eq!(train(&["ab", "bc", "bc", "ab"], 9, 1), [(a, b), (b, c)]);
        assert_eq!(
            train(&["bc", "bc", "ab", "bc", "ab"], 9, 1),
            [(b, c), (a, b)]
        );
        assert_eq!(train(&["abc", "abc"], 9, 1), [(a, b), (256, c)]);
        assert_eq!(train(&["abc", "abc"], 1, 1), [(a, b)]);
    }

    #[test]
    fn runs_of_one_letter_merge_from_the_left() {
        let a = 97;
        // aaaaaaa: (a,a) occurs 6 times; then AAAa: (A,A) twice, (A,a) once; then nothing twice.
        assert_eq!(train(&["aaaaaaa"], 9, 1), [(a, a), (256, 256)]);
        assert_eq!(train(&["aaaa", "aaa"], 9, 1), [(a, a)]);
    }

    #[test]
    fn nothing_that_occurs_once_is_merged() {
        assert_eq!(train(&[], 9, 1), []);
        assert_eq!(train(&["", "abcd"], 9, 1), []);
    }

    #[test]
    fn same_for_any_number_of_threads() {
        let texts: Vec<String> = (0..300)
            .map(|i| format!("the {} cat, {}th of {}", i % 7, i * i, i % 11))
            .collect();
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        let one = train(&texts, 200, 1);
        assert!(one.len() > 50);
        assert_eq!(train(&texts, 200, 2), one);
        assert_eq!(train(&texts, 200, 8), one);
    }

    #[test]
    fn errors_stop_the_work() {
        let error = || Error::NoThread("stop".into());
        let splitter = Splitter::new(None).unwrap();
        let mut left = 3;
        let fill = |batch: &mut Batch| {
            batch.push("hello hello");
            left -= 1;
            if left > 0 { Ok(()) } else { Err(error()) }
        };
        assert_eq!(
            count_pieces(&splitter, 4, fill, || Ok(())).err(),
            Some(error())
        );
        let mut counts = PieceCounts::default();
        counts.update(b"abab", |count| *count = 5);
        assert_eq!(
            learn_merges(counts, 9, |_| Err(error())).err(),
            Some(error())
        );
        // (x+x+)+y needs exponential time on x...x, which fancy-regex refuses.
        let splitter = Splitter::new(Some(r"(x+x+)+(?=y)\1")).unwrap();
        let fill = |batch: &mut Batch| {
            batch.push(&"x".repeat(60));
            Ok(())
        };
        let failed = count_pieces(&splitter, 2, fill, || Ok(())).err();
        assert!(matches!(failed, Some(Error::SplitFailed(_))), "{failed:?}");
    }
}
