//! A hash map whose keys are pieces, most of them short.

use rustc_hash::FxHashMap;

/// Pieces to values. A piece of up to 15 bytes is stored in the table itself. With a box per piece
/// instead, each look-up would wait for one more cache line and each new piece for the allocator.
#[derive(Default)]
pub struct PieceMap<V> {
    short: FxHashMap<(u64, u64), V>,
    long: FxHashMap<Box<[u8]>, V>,
}

/// The piece as a key of `short`: its bytes, then zeros, then its length.
#[inline]
fn pack(piece: &[u8]) -> Option<(u64, u64)> {
    let len = piece.len();
    if len > 15 {
        return None;
    }
    let mut bytes = [0; 16];
    bytes[..len].copy_from_slice(piece);
    bytes[15] = len as u8;
    let number = u128::from_le_bytes(bytes);
    Some((number as u64, (number >> 64) as u64))
}

fn unpack((low, high): (u64, u64)) -> ([u8; 16], usize) {
    let bytes = (u128::from(low) | u128::from(high) << 64).to_le_bytes();
    (bytes, usize::from(bytes[15]))
}

impl<V: Copy + Default> PieceMap<V> {
    /// The value of the piece, if it is here.
    #[inline]
    pub fn get(&self, piece: &[u8]) -> Option<V> {
        match pack(piece) {
            Some(key) => self.short.get(&key).copied(),
            None => self.long.get(piece).copied(),
        }
    }

    /// Changes the value of the piece; that of a new piece is the default.
    #[inline]
    pub fn update(&mut self, piece: &[u8], change: impl FnOnce(&mut V)) {
        match pack(piece) {
            Some(key) => change(self.short.entry(key).or_default()),
            // Not `entry`: it would box the piece at every look-up.
            None => match self.long.get_mut(piece) {
                Some(value) => change(value),
                None => {
                    let mut value = V::default();
                    change(&mut value);
                    self.long.insert(piece.into(), value);
                }
            },
        }
    }

    /// How many pieces it holds.
    pub fn len(&self) -> usize {
        self.short.len() + self.long.len()
    }

    /// Whether it holds none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Visits every piece with its value, in no particular order.
    pub fn for_each(&self, mut visit: impl FnMut(&[u8], V)) {
        for (&key, &value) in &self.short {
            let (bytes, len) = unpack(key);
            visit(&bytes[..len], value);
        }
        for (piece, &value) in &self.long {
            visit(piece, value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_and_long_pieces_come_back() {
        let mut map = PieceMap::default();
        // Zeros, because short pieces are padded with them; every length around the limit.
        let pieces: Vec<Vec<u8>> = (0..20)
            .flat_map(|len| [vec![0; len], (1..=len as u8).collect()])
            .collect();
        for piece in &pieces {
            map.update(piece, |count| *count += 1);
        }
        assert_eq!(map.len(), 39, "the empty piece is in the list twice");
        assert_eq!(map.get(b""), Some(2));
        assert_eq!(map.get(&[0; 19]), Some(1));
        assert_eq!(map.get(&[0; 20]), None);
        let mut found = vec![vec![]];
        map.for_each(|piece, _| found.push(piece.to_vec()));
        found.sort();
        let mut expected = pieces;
        expected.sort();
        assert_eq!(found, expected);
    }
}
