"""What a file's bytes must be like before anything may learn from them. Knows no paths and opens no files.

A refusal covers the whole file: cutting a secret out would leave its surroundings, and a filter that guesses where a
secret ends is wrong some day.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator
from enum import Enum
from itertools import pairwise

LONGEST_LINE = 5000
"""Characters. A longer line is minified or generated text."""


class Refusal(str, Enum):
    """Why a file is not read. The value completes the sentence "left out because …"."""

    EXCLUDED = "the rules leave it out"
    MISSING = "it does not exist"
    UNREADABLE = "it cannot be opened"
    LINK = "it is a symbolic link or lies behind one"
    IRREGULAR = "it is not a regular file"
    TOO_LARGE = "it is larger than files.maxSizeKb"
    BINARY = "it is not text (NUL byte or invalid UTF-8)"
    MINIFIED = f"it has a line of more than {LONGEST_LINE} characters"
    SECRET = "it seems to hold a private key or a credential"  # noqa: S105 - a sentence about secrets


# A fast search for fixed words finds the places; a pattern looks at each. Every repetition is bounded, so that a
# hostile file cannot make this slow.
_KEY_BLOCK = re.compile(rb"-----BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----")
_TOKENS = {
    b"AKIA": rb"AKIA[0-9A-Z]{16}",  # AWS
    b"ASIA": rb"ASIA[0-9A-Z]{16}",
    b"gh": rb"gh[pousr]_[A-Za-z0-9]{36}",  # GitHub
    b"github_pat_": rb"github_pat_\w{40}",
    b"glpat-": rb"glpat-[\w-]{20}",  # GitLab
    b"xox": rb"xox[abeprs]-[A-Za-z0-9-]{20}",  # Slack
    b"AIza": rb"AIza[\w-]{35}",  # Google
    b"k_live_": rb"k_live_[0-9A-Za-z]{16}",  # Stripe
    b"sk-": rb"sk-(?:ant-|proj-)?[\w-]{0,12}[A-Za-z0-9]{20}",
    b"hf_": rb"hf_[A-Za-z0-9]{30}",
    b"npm_": rb"npm_[A-Za-z0-9]{36}",
    b"pypi-": rb"pypi-[\w-]{50}",
    b"eyJ": rb"eyJ[\w-]{10,1000}\.eyJ[\w-]{10,4000}\.[\w-]{10}",  # JSON web token
}
_TOKEN_FORMS = {prefix: re.compile(form) for prefix, form in _TOKENS.items()}
_NAMES = (b"secret", b"token", b"passw", b"credential", b"authoriz", b"authoris")
_KEY_KINDS = (b"api", b"access", b"private", b"secret", b"auth", b"account", b"master", b"signing", b"encryption")
_ASSIGNED = re.compile(
    rb"""[\w-]{0,40}["'\]]{0,2}[ \t]{0,20}(?::[ \t]{0,4}\w{1,20}[ \t]{0,4})?[:=(,][ \t]{0,20}[brfuBRFU]{0,2}"""
    rb"""["'](?:Bearer |Basic )?([^\s"'{}<>$%()]{16,512})["']"""
)
_IN_URL = re.compile(rb"://[^\s:/@\"']{1,64}:([^\s/@\"'{}<>$%]{12,256})@")
_LEAST_ENTROPY = 3.2
"""Bits a character. Random hex of 32 characters has about 3.7, random base64 of 24 about 4.2, a repeated word 2.5."""
_LEAST_MIXING = 1 / 6
_LEAST_MIXING_OF_A_NAME = 0.45
"""Changes between lower case, upper case and digit for each character: 0.6 in random text, 0.35 in CamelCase2Names,
below 0.1 in paths."""


def check_content(data: bytes) -> Refusal | str:
    """The text of `data`, or why it is refused."""
    if b"\0" in data:
        return Refusal.BINARY
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        return Refusal.BINARY
    if any(len(line) > LONGEST_LINE for line in text.split("\n")):
        return Refusal.MINIFIED
    return Refusal.SECRET if _contains_secret(data) else text


def contains_secret(text: str) -> bool:
    """Whether `text` has a private key block, a token of a well-known form, or a random-looking credential."""
    return _contains_secret(text.encode("utf-8", "surrogatepass"))


def _contains_secret(data: bytes) -> bool:
    if b"PRIVATE KEY" in data and _KEY_BLOCK.search(data):
        return True
    for prefix, form in _TOKEN_FORMS.items():
        if any(form.match(data, at) for at in _places(data, prefix)):
            return True
    values = [match[1] for at in _places(data, b"://") if (match := _IN_URL.match(data, at))]
    lower = data.lower()
    ends = [at + len(name) for name in _NAMES for at in _places(lower, name)]
    ends += [at + 3 for at in _places(lower, b"key") if lower[max(0, at - 12) : at].rstrip(b"_-").endswith(_KEY_KINDS)]
    values += [match[1] for end in ends if (match := _ASSIGNED.match(data, end))]
    return any(_random(value.decode("utf-8", "replace")) for value in values)


def _places(data: bytes, word: bytes) -> Iterator[int]:
    at = data.find(word)
    while at >= 0:
        yield at
        at = data.find(word, at + 1)


def _random(value: str) -> bool:
    """Whether a string looks drawn at random: letters and digits, well mixed, close to evenly spread."""
    if not (any(c.isdigit() for c in value) and any(c.isalpha() for c in value)):
        return False
    kinds = ["0" if c.isdigit() else "A" if c.isupper() else "a" for c in value if c.isalnum()]
    total = len(value)
    mixing = sum(a != b for a, b in pairwise(kinds)) / total
    entropy = -sum(n / total * math.log2(n / total) for n in Counter(value).values())
    is_name = value.isidentifier() and {"A", "a"} <= set(kinds)
    return mixing >= (_LEAST_MIXING_OF_A_NAME if is_name else _LEAST_MIXING) and entropy >= _LEAST_ENTROPY
