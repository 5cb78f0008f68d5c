"""The text as somebody might type it: without capitals, marks, apostrophes, or care."""

from __future__ import annotations

import re

from nanochat.data.tinyworld.rng import Rng

# What fingers or ears get wrong again and again.
TYPOS = (
    ("what", "wat"), ("what", "waht"), ("what", "wht"), ("the", "teh"), ("capital", "captial"),
    ("capital", "capitol"), ("which", "wich"), ("opposite", "oposite"), ("animal", "aminal"),
    ("does", "dose"), ("called", "caled"), ("where", "were"), ("know", "kno"), ("tell", "tel"),
    ("color", "colour"), ("color", "color"), ("favorite", "favourite"), ("because", "becuz"),
    ("is", "iz"), ("are", "r"), ("your", "ur"), ("you're", "ur"), ("going to", "gonna"),
    ("want to", "wanna"), ("give me", "gimme"), ("do you", "d'you"), ("you", "ya"),
)  # fmt: skip
KEYS = ("qwertyuiop", "asdfghjkl", "zxcvbnm")
NEIGHBORS = {
    key: row[max(0, i - 1) : i] + row[i + 1 : i + 2] for row in KEYS for i, key in enumerate(row)
}
WORD = re.compile(r"[a-z]{4,}")


def typed(rng: Rng, text: str) -> str:
    """As somebody might type it; about four in ten stay as they are."""
    roll = rng.below(100)
    if rng.chance(30):
        text = re.sub(r"\b([Ww]hat|[Ww]here|[Ww]ho|[Hh]ow) is (?!it\b)", r"\1's ", text, count=1)
    if rng.chance(15):
        text = (
            text.replace("color", "colour").replace("gray", "grey").replace("favorite", "favourite")
        )
    if roll < 34 or (not text[-1:].isalnum() and len(text) < 5):
        return text  # "?!" and "..." are whole messages
    if roll < 40:
        return text.rstrip("?.! ") or text
    if roll < 42:
        return text + (text[-1] if text[-1] in "?!" else "")
    text = text.lower()
    if roll < 58:
        return slip(rng, text) if rng.chance(8) else text
    text = text.rstrip("?.! ") or text
    if text.startswith("the ") and rng.chance(40):
        text = text[4:]
    if rng.chance(70):
        text = text.replace("'", "") if text.count("'") == 1 else text
    if rng.chance(15):
        text = re.sub(r"\byou\b", "u", text)
        text = text.replace("please", rng.choice(("pls", "plz")))
    if rng.chance(30):
        text = text.replace(",", "").replace(":", "")
    if rng.chance(7):
        right, wrong = rng.choice(TYPOS)
        text = re.sub(rf"\b{right}\b", wrong, text, count=1)
    elif rng.chance(12):
        text = slip(rng, text)
    if rng.chance(5):
        text = rng.choice(("hey ", "um ", "yo ", "so ", "ok ", "hi ")) + text
    elif rng.chance(5):
        text += rng.choice((" pls", " please", " bro", " ...", " thx", " lol", " ?", "??"))
    return text


def slip(rng: Rng, text: str) -> str:
    """The text with two letters swapped, one dropped, doubled, or hit beside the key."""
    found = list(WORD.finditer(text))
    if not found:
        return text
    start, end = rng.choice(found).span()
    i = rng.between(start, end - 2)
    way = rng.below(4)
    if way == 0:
        return text[:i] + text[i + 1] + text[i] + text[i + 2 :]
    if way == 1:
        return text[:i] + text[i + 1 :]
    if way == 2:
        return text[:i] + text[i] + text[i:]
    return text[:i] + rng.choice(NEIGHBORS[text[i]]) + text[i + 1 :]
