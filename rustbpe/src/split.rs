//! Text to pieces. The default pattern has a hand-written splitter; any other goes to fancy-regex.
//!
//! The hand-written one exists for speed: with fancy-regex, most of the time of training and of
//! encoding goes into splitting. The tests hold the two equal.

use std::sync::LazyLock;

use fancy_regex::Regex;
use regex_syntax::hir::{Class, HirKind};

use crate::Error;

/// GPT-4's split pattern, but with at most two digits per piece instead of three: that way a small
/// vocabulary spends fewer tokens on numbers.
pub const DEFAULT_PATTERN: &str = concat!(
    r"'(?i:[sdmt]|ll|ve|re)",
    r"|[^\r\n\p{L}\p{N}]?+\p{L}+",
    r"|\p{N}{1,2}",
    r"| ?[^\s\p{L}\p{N}]++[\r\n]*",
    r"|\s*[\r\n]",
    r"|\s+(?!\S)",
    r"|\s+",
);

/// Splits texts by one pattern. Give each thread a clone: threads that share a regex fight over
/// its scratch space.
#[derive(Clone)]
pub struct Splitter {
    regex: Option<Regex>, // None: the default pattern
}

impl Splitter {
    /// None is the default pattern.
    pub fn new(pattern: Option<&str>) -> Result<Self, Error> {
        match pattern {
            None | Some(DEFAULT_PATTERN) => Ok(Self { regex: None }),
            Some(pattern) => Self::with_regex(pattern),
        }
    }

    /// With fancy-regex even for the default pattern.
    fn with_regex(pattern: &str) -> Result<Self, Error> {
        let regex = Regex::new(pattern).map_err(|e| Error::BadPattern(one_line(&e)))?;
        Ok(Self { regex: Some(regex) })
    }

    /// Hands the pieces of `text` to `visit`, in order, until it returns false. Joined, the pieces
    /// are the text: what a custom pattern does not match becomes a piece of its own.
    pub fn split<'t>(
        &self,
        text: &'t str,
        mut visit: impl FnMut(&'t [u8]) -> bool,
    ) -> Result<(), Error> {
        match &self.regex {
            None => split_default(text, visit),
            Some(regex) => {
                let mut done = 0;
                for found in regex.find_iter(text) {
                    let found = found.map_err(|e| Error::SplitFailed(one_line(&e)))?;
                    if found.as_str().is_empty() {
                        continue;
                    }
                    let gap = &text.as_bytes()[done..found.start()];
                    if !gap.is_empty() && !visit(gap) || !visit(found.as_str().as_bytes()) {
                        return Ok(());
                    }
                    done = found.end();
                }
                if done < text.len() {
                    visit(&text.as_bytes()[done..]);
                }
            }
        }
        Ok(())
    }
}

fn one_line(error: &fancy_regex::Error) -> String {
    error
        .to_string()
        .split_whitespace()
        .collect::<Vec<_>>()
        .join(" ")
}

/// The classes that the default pattern tells apart; no character is in two of them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
enum Kind {
    Other,   // [^\s\p{L}\p{N}]
    Letter,  // \p{L}
    Number,  // \p{N}
    Space,   // \s, but not a newline
    Newline, // [\r\n]
    End,     // past the end of the text
}
use Kind::{End, Letter, Newline, Number, Other, Space};

/// The kind of every character, 1.1 MB. From regex-syntax and not from `char::is_alphabetic`, which
/// is a different property, and the standard library may have a different version of Unicode.
static KINDS: LazyLock<Box<[Kind]>> = LazyLock::new(|| {
    let mut kinds = vec![Other; char::MAX as usize + 1].into_boxed_slice();
    for (class, kind) in [(r"\p{L}", Letter), (r"\p{N}", Number), (r"\s", Space)] {
        // All three parse to a Unicode class; a test compares the table with the regexes.
        if let Ok(hir) = regex_syntax::parse(class)
            && let HirKind::Class(Class::Unicode(class)) = hir.kind()
        {
            for range in class.ranges() {
                kinds[range.start() as usize..=range.end() as usize].fill(kind);
            }
        }
    }
    kinds[usize::from(b'\r')] = Newline;
    kinds[usize::from(b'\n')] = Newline;
    kinds
});

/// A text, and the table. Positions are byte offsets where a character starts.
struct Scanner<'t> {
    text: &'t str,
    kinds: &'static [Kind],
}

impl Scanner<'_> {
    /// The kind of the character at `at`, and its length in bytes (0 at the end).
    #[inline]
    fn look(&self, at: usize) -> (Kind, usize) {
        match self.text.as_bytes().get(at) {
            None => (End, 0),
            Some(&byte) if byte < 0x80 => (self.kinds[usize::from(byte)], 1),
            Some(_) => match self.text[at..].chars().next() {
                None => (End, 0),
                Some(c) => (self.kinds[c as usize], c.len_utf8()),
            },
        }
    }

    /// Where the run of characters of `kind` that starts at `at` ends.
    #[inline]
    fn run(&self, kind: Kind, mut at: usize) -> usize {
        loop {
            let (found, len) = self.look(at);
            if found != kind {
                return at;
            }
            at += len;
        }
    }

    /// Where `'s`, `'ll` and so on end, if one starts at the apostrophe at `at`.
    #[inline]
    fn contraction(&self, at: usize) -> Option<usize> {
        let rest = &self.text.as_bytes()[at + 1..];
        match rest.first()?.to_ascii_lowercase() {
            b's' | b'd' | b'm' | b't' => Some(at + 2),
            first @ (b'l' | b'v' | b'r') => {
                let second = if first == b'l' { b'l' } else { b'e' };
                (rest.get(1)?.to_ascii_lowercase() == second).then_some(at + 3)
            }
            // U+017F, the long s, is an s when case is ignored.
            0xC5 if rest.get(1) == Some(&0xBF) => Some(at + 3),
            _ => None,
        }
    }

    /// Where the piece that starts at `at` ends. The first character, at most two, decides which
    /// branch of the pattern applies: that is why no backtracking is needed.
    #[inline]
    fn piece(&self, at: usize) -> usize {
        let (kind, len) = self.look(at);
        let next = at + len;
        match kind {
            Letter => self.run(Letter, next),
            Number => match self.look(next) {
                (Number, len) => next + len,
                _ => next,
            },
            Space => match self.look(next) {
                (Letter, len) => self.run(Letter, next + len),
                (Other, len) if self.text.as_bytes()[at] == b' ' => self.others(next + len),
                _ => self.white(at),
            },
            Other => {
                if self.text.as_bytes()[at] == b'\''
                    && let Some(end) = self.contraction(at)
                {
                    return end;
                }
                match self.look(next) {
                    (Letter, len) => self.run(Letter, next + len),
                    _ => self.others(next),
                }
            }
            Newline => self.white(at),
            End => at,
        }
    }

    /// The rest of a run of other characters, and the newlines after it.
    fn others(&self, at: usize) -> usize {
        self.run(Newline, self.run(Other, at))
    }

    /// A run of white space. It ends after its last newline. Without a newline it leaves its last
    /// character to the next word, unless it is a single character or ends the text.
    fn white(&self, start: usize) -> usize {
        let (mut at, mut last, mut newline_end) = (start, start, None);
        loop {
            let (kind, len) = self.look(at);
            match kind {
                Space => {}
                Newline => newline_end = Some(at + len),
                End => return newline_end.unwrap_or(at),
                _ if last > start => return newline_end.unwrap_or(last),
                _ => return newline_end.unwrap_or(at),
            }
            last = at;
            at += len;
        }
    }
}

fn split_default<'t>(text: &'t str, mut visit: impl FnMut(&'t [u8]) -> bool) {
    let scanner = Scanner {
        text,
        kinds: &KINDS,
    };
    let mut at = 0;
    while at < text.len() {
        let end = scanner.piece(at);
        if !visit(&text.as_bytes()[at..end]) {
            return;
        }
        at = end;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pieces(splitter: &Splitter, text: &str) -> Vec<String> {
        let mut out = Vec::new();
        let visit = |piece: &[u8]| {
            out.push(String::from_utf8(piece.to_vec()).expect("pieces end at characters"));
            true
        };
        splitter
            .split(text, visit)
            .expect("the pattern works on every text");
        out
    }

    fn assert_same(text: &str) {
        static ORACLE: LazyLock<Splitter> =
            LazyLock::new(|| Splitter::with_regex(DEFAULT_PATTERN).unwrap());
        let ours = pieces(&Splitter::new(None).unwrap(), text);
        assert_eq!(ours, pieces(&ORACLE, text), "on {text:?}");
    }

    #[test]
    fn a_sentence() {
        let text = "I'LL say: it's  2024,\n\n  don't…go!\n";
        let splitter = Splitter::new(None).unwrap();
        let expected = [
            "I", "'LL", " say", ":", " it", "'s", " ", " ", "20", "24", ",\n\n", " ", " don", "'t",
            "…go", "!\n",
        ];
        assert_eq!(pieces(&splitter, text), expected);
    }

    #[test]
    fn same_as_the_regex_on_all_short_strings() {
        // Every string of up to 4 of these: at least one of each kind, and what has its own rule.
        let alphabet = [" ", "\n", "\t", "'", "s", "l", "7", "!", "é"];
        for length in 0..=4 {
            for mut number in 0..alphabet.len().pow(length) {
                let mut text = String::new();
                for _ in 0..length {
                    text.push_str(alphabet[number % alphabet.len()]);
                    number /= alphabet.len();
                }
                assert_same(&text);
            }
        }
    }

    #[test]
    fn same_as_the_regex_on_every_character() {
        // In blocks, because calling the regex costs more than matching. Only some characters
        // beyond the first plane, where whole blocks are of one kind.
        for block in (0..0x11_0000).step_by(256) {
            let step = if block < 0x1_0000 { 1 } else { 15 };
            let all = (block..block + 256)
                .step_by(step)
                .filter_map(char::from_u32);
            assert_same(&all.map(|c| format!("{c}a{c}1")).collect::<String>());
        }
    }

    #[test]
    fn same_as_the_regex_on_random_strings() {
        let mut state = 1u64;
        let mut random = |below: u64| {
            // An LCG (Knuth's MMIX constants) is good enough here and saves a crate.
            state = state
                .wrapping_mul(6364136223846793005)
                .wrapping_add(1442695040888963407);
            (state >> 33) % below
        };
        let common: Vec<char> =
            " \n\r\t'sStTlLvVeErRmMdD09.!\u{17f}\u{212a}\u{85}\u{a0}\u{2028}é中²Ⅷ\u{301}😀"
                .chars()
                .collect();
        for _ in 0..5_000 {
            let length = random(30);
            let text: String = (0..length)
                .filter_map(|_| match random(4) {
                    0 => char::from_u32(random(0x11_0000) as u32),
                    _ => Some(common[random(common.len() as u64) as usize]),
                })
                .collect();
            assert_same(&text);
        }
    }

    #[test]
    fn long_runs_take_linear_time_and_no_stack() {
        let splitter = Splitter::new(None).unwrap();
        for unit in [" ", "\n", "a", "!", "1", " \n"] {
            let text = unit.repeat(2_000_000);
            assert_eq!(pieces(&splitter, &text).concat(), text);
        }
    }

    #[test]
    fn custom_patterns_keep_every_byte() {
        let splitter = Splitter::new(Some(r"\d+|")).unwrap();
        assert_eq!(pieces(&splitter, "ab12é3"), ["ab", "12", "é", "3"]);
        let error = Splitter::new(Some("(")).err().unwrap().to_string();
        assert!(error.starts_with("pattern is not a valid"), "{error}");
        assert!(!error.contains('\n'));
    }
}
