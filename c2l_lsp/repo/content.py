"""What a file's bytes must be like before anything may learn from them. Knows no paths and opens no files.

A refusal covers the whole file: cutting a secret out would leave its surroundings, and a filter that guesses where a
secret ends is wrong some day.
"""

from __future__ import annotations

import math
import re
from collections import Counter
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


# Every repetition is bounded: a hostile file must not make matching slow.
_KEY_BLOCK = re.compile(r"-----BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----")
_TOKEN = re.compile(
    r"\b(?:"
    r"(?:AKIA|ASIA)[0-9A-Z]{16}"  # AWS
    r"|gh[pousr]_[A-Za-z0-9]{36,255}|github_pat_[A-Za-z0-9_]{40,255}|glpat-[A-Za-z0-9_-]{20,64}"
    r"|xox[abeprs]-[A-Za-z0-9-]{20,255}"  # Slack
    r"|AIza[0-9A-Za-z_-]{35}"  # Google
    r"|[sr]k_live_[0-9A-Za-z]{16,255}"  # Stripe
    r"|sk-(?:ant-|proj-)?[A-Za-z0-9_-]{32,255}"
    r"|hf_[A-Za-z0-9]{30,64}|npm_[A-Za-z0-9]{36}|pypi-[A-Za-z0-9_-]{50,255}"
    r"|eyJ[A-Za-z0-9_-]{10,1000}\.eyJ[A-Za-z0-9_-]{10,4000}\.[A-Za-z0-9_-]{10,1000}"  # JSON web token
    r")"
)
_ASSIGNED = re.compile(
    r"(?:api_?-?key|access_?-?key|private_?-?key|client_?-?secret|secret|token|passw(?:or)?d|credential|authori[sz]ation)"
    r"""[\w-]{0,40}["'\]]{0,2}[ \t]{0,20}(?::[ \t]{0,4}\w{1,20}[ \t]{0,4})?[:=(,][ \t]{0,20}[brfu]{0,2}"""
    r"""["'](?:Bearer |Basic )?([^\s"'{}<>$%()]{16,512})["']""",
    re.IGNORECASE,
)
_IN_URL = re.compile(r"://[^\s:/@\"']{1,64}:([^\s/@\"'{}<>$%]{12,256})@")
_LEAST_ENTROPY = 3.2
"""Bits a character. Random hex of 32 characters has about 3.7, random base64 of 24 about 4.2, a repeated word 2.5."""
_LEAST_MIXING = 1 / 6
"""Changes between lower case, upper case and digit for each character: 0.5 in random text, below 0.1 in paths."""


def refusal(data: bytes) -> Refusal | str:
    """The text of `data`, or why it is refused."""
    if b"\0" in data:
        return Refusal.BINARY
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        return Refusal.BINARY
    if any(len(line) > LONGEST_LINE for line in text.split("\n")):
        return Refusal.MINIFIED
    return Refusal.SECRET if holds_secret(text) else text


def holds_secret(text: str) -> bool:
    """Whether `text` has a private key block, a token of a well-known form, or a random-looking credential."""
    if _KEY_BLOCK.search(text) or _TOKEN.search(text):
        return True
    return any(_random(m[1]) for m in _ASSIGNED.finditer(text)) or any(_random(m[1]) for m in _IN_URL.finditer(text))


def _random(value: str) -> bool:
    """Whether a string looks drawn at random: letters and digits, well mixed, close to evenly spread."""
    if not (any(c.isdigit() for c in value) and any(c.isalpha() for c in value)):
        return False
    kinds = ["0" if c.isdigit() else "A" if c.isupper() else "a" for c in value if c.isalnum()]
    changes = sum(a != b for a, b in pairwise(kinds))
    total = len(value)
    entropy = -sum(n / total * math.log2(n / total) for n in Counter(value).values())
    return changes >= total * _LEAST_MIXING and entropy >= _LEAST_ENTROPY
