"""What people type, without what only makes it hard to read for a small model.

Training, chat, server and evaluation all see a user's message through this one function, so the
model meets nothing at the keyboard that it was not trained on. A model of a small world reads a
line in its plain form: small letters, whole words, no mark at its end. "WHATS THE CAPITAL OF
FRANCE??" and "What's the capital of France?" are then one question, not two to be learned.
"""

from __future__ import annotations

import re

MAX_CHARACTERS = 300  # of a line that somebody typed; what is longer was pasted, and stays as it is
QUOTES = str.maketrans({"‘": "'", "’": "'", "“": '"', "”": '"'})  # as phones put them
MARKS = re.compile(r"[?!]{2,}$")
# At the end: pictures, with what joins and colors them. Inside a sentence they may mean something.
EMOJI = re.compile("[ \u2600-\u27bf\u2b05-\u2bff\U0001f000-\U0001faff\u200d\u20e3\ufe0f]+$")

# The plain form of a word. Not "its", "ill", "id", which may mean two things.
PLAIN = {
    "whats": "what is", "wheres": "where is", "whos": "who is", "hows": "how is",
    "whens": "when is", "thats": "that is", "theres": "there is", "im": "i am", "ive": "i have",
    "youre": "you are", "theyre": "they are", "dont": "do not", "doesnt": "does not",
    "didnt": "did not", "cant": "can not", "cannot": "can not", "isnt": "is not",
    "arent": "are not", "wasnt": "was not", "wont": "will not", "havent": "have not",
    "ur": "your", "pls": "please", "plz": "please", "thx": "thanks", "gonna": "going to",
    "wanna": "want to", "gimme": "give me", "wat": "what", "wut": "what", "ppl": "people",
    "bday": "birthday", "cuz": "because", "idk": "i do not know", "dunno": "do not know",
    "teh": "the", "colour": "color", "colours": "colors", "favourite": "favorite",
    "favourites": "favorites", "grey": "gray", "mum": "mom", "mommy": "mom", "mummy": "mom",
    "theatre": "theater", "maths": "math", "metre": "meter", "metres": "meters",
    "centre": "center",
}  # fmt: skip
SIGNS = str.maketrans({"×": "*", "÷": "/", "−": "-"})
WORD = re.compile(r"[a-z]+")
APOSTROPHE = re.compile(r"(?<=[a-z][a-z])'(?=[a-z])|(?<=\bi)'(?=[a-z])")  # not that of "r's"
YOU = re.compile(r"(?<=[a-z] )u\b|^u\b(?= )")
THE_LETTER_U = re.compile(r"(?:letters?|after|before|the|an?|vowel|is|say|and|with|by) u\b")
ARE = re.compile(r"\br (?=(?:u|you|your|we|they)\b)")


def clean_typing(text: str, plain: bool = False) -> str:
    """A user's line in the form that the training data have.

    >>> clean_typing("WHAT  DOES A COW SAY??!! 🐄")
    'what does a cow say?'
    >>> clean_typing("hi 😀"), clean_typing("😀"), clean_typing("OK"), clean_typing("I")
    ('hi', '😀', 'ok', 'I')
    >>> clean_typing("What's the capital of France?", plain=True), clean_typing("WHO R U", True)
    ('what is the capital of france', 'who are you')
    """
    # Several lines are a poem, a program, a list: there every space may mean something.
    if "\n" in text.strip() or len(text) > MAX_CHARACTERS or not text.strip():
        return text
    line = " ".join(text.translate(QUOTES).split())
    line = EMOJI.sub("", line) or line
    line = MARKS.sub(lambda marks: "?" if "?" in marks[0] else "!", line)
    if plain:
        return _plain(line)
    # A word in capitals is other tokens than the word, and the model has never seen most of them.
    letters = [character for character in line if character.isalpha()]
    if len(letters) > 1 and all(letter.isupper() for letter in letters):
        line = line.lower()
    return line


def _plain(line: str) -> str:
    line = APOSTROPHE.sub("", line.lower().translate(SIGNS))
    line = ARE.sub("are ", line)
    if not THE_LETTER_U.search(line):
        line = YOU.sub("you", line)
    line = WORD.sub(lambda word: PLAIN.get(word[0], word[0]), line)
    return line.rstrip("?!., ") or line
