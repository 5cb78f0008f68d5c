"""What people type, without what only makes it hard to read for a small model.

Training, chat, server and evaluation all see a user's message through this one function, so the
model meets nothing at the keyboard that it was not trained on.
"""

from __future__ import annotations

import re

MAX_CHARACTERS = 300  # of a line that somebody typed; what is longer was pasted, and stays as it is
QUOTES = str.maketrans({"‘": "'", "’": "'", "“": '"', "”": '"'})  # as phones put them
MARKS = re.compile(r"[?!]{2,}$")
# At the end: pictures, with what joins and colors them. Inside a sentence they may mean something.
EMOJI = re.compile("[ \u2600-\u27bf\u2b05-\u2bff\U0001f000-\U0001faff\u200d\u20e3\ufe0f]+$")


def clean_typing(text: str) -> str:
    """A user's line in the form that the training data have.

    >>> clean_typing("WHAT  DOES A COW SAY??!! 🐄")
    'what does a cow say?'
    >>> clean_typing("hi 😀"), clean_typing("😀"), clean_typing("OK"), clean_typing("I")
    ('hi', '😀', 'ok', 'I')
    """
    # Several lines are a poem, a program, a list: there every space may mean something.
    if "\n" in text.strip() or len(text) > MAX_CHARACTERS or not text.strip():
        return text
    line = " ".join(text.translate(QUOTES).split())
    line = EMOJI.sub("", line) or line
    line = MARKS.sub(lambda marks: "?" if "?" in marks[0] else "!", line)
    # A word in capitals is other tokens than the word, and the model has never seen most of them.
    letters = [character for character in line if character.isalpha()]
    if len(letters) > 1 and all(letter.isupper() for letter in letters):
        line = line.lower()
    return line
