"""As much grammar as the templates need: articles, plurals, capitals."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping


def bare(phrase: str) -> str:
    """The phrase without its article.

    >>> bare("a cow"), bare("the sea"), bare("snow")
    ('cow', 'sea', 'snow')
    """
    for article_of_it in ("a ", "an ", "the "):
        if phrase.startswith(article_of_it):
            return phrase[len(article_of_it) :]
    return phrase


def listed(text: str) -> tuple[str, ...]:
    """The words of a text."""
    return tuple(text.split())


def article(noun: str) -> str:
    """The noun with a or an.

    >>> article("owl"), article("unicorn")
    ('an owl', 'a unicorn')
    """
    vowel = noun[:1].lower() in "aeiou" and not re.match(
        r"(?:uni(?!n)|us[aeiu]|eu|one\b|ukulele)", noun
    )
    return ("an " if vowel else "a ") + noun


def capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def plural(noun: str, irregular: Mapping[str, str] = {}, mass: Collection[str] = ()) -> str:
    """More than one of the noun.

    >>> plural("cow"), plural("box"), plural("pastry"), plural("mouse", {"mouse": "mice"})
    ('cows', 'boxes', 'pastries', 'mice')
    """
    if noun in mass:
        return noun
    if noun in irregular:
        return irregular[noun]
    first, space, last = noun.rpartition(" ")
    if space:
        return f"{first} {plural(last, irregular, mass)}"
    if noun.endswith(("s", "x", "ch", "sh")):
        return noun + "es"
    if noun.endswith("y") and noun[-2:-1] not in "aeiou":
        return noun[:-1] + "ies"
    return noun + "s"


SMALL = (
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven",
    "twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen",
)  # fmt: skip
TENS = ("twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")


def in_words(n: int, between: str = " ") -> str:
    """A number from 0 to 100 in words.

    >>> in_words(7), in_words(25), in_words(40, "-"), in_words(99, "-")
    ('seven', 'twenty five', 'forty', 'ninety-nine')
    """
    if n < 20:
        return SMALL[n]
    if n == 100:
        return "one hundred"
    tens, ones = TENS[n // 10 - 2], n % 10
    return f"{tens}{between}{SMALL[ones]}" if ones else tens
