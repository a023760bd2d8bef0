"""Content rules: text files without secrets pass. Works on bytes; knows no paths and opens no files.

A secret refuses the whole file. Cutting it out would need to know exactly where it ends.
"""

from __future__ import annotations

import math
import re
import string
from collections import Counter
from collections.abc import Iterator
from enum import Enum
from itertools import pairwise

MAX_LINE_LENGTH = 5000
"""In characters. A file with a longer line is minified or generated."""


class Refusal(str, Enum):
    """The reason why a file is not read. The value completes the sentence "excluded because …"."""

    EXCLUDED = "the ignore rules exclude it"
    MISSING = "it does not exist"
    UNREADABLE = "it cannot be opened"
    LINK = "its path contains a symbolic link"
    IRREGULAR = "it is not a regular file"
    TOO_LARGE = "it is larger than files.maxSizeKb"
    BINARY = "it is not text (NUL byte or invalid UTF-8)"
    MINIFIED = f"it has a line of more than {MAX_LINE_LENGTH} characters"
    SECRET = "it seems to contain a private key or a credential"  # noqa: S105 - a sentence about secrets


# A fast search for fixed words finds candidates, and a pattern checks each of them. Every repetition is bounded, so
# that a hostile file cannot make this slow.
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
}
_WEB_TOKEN_REST = re.compile(rb"\.eyJ[\w-]{10,4000}\.[\w-]{10}")  # of a JSON web token, after its header
_WEB_TOKEN_HEADER = range(10, 1001)
_WEB_TOKEN_BYTES = (string.ascii_letters + string.digits + "_-").encode()
_TOKEN_PATTERNS = {prefix: re.compile(pattern) for prefix, pattern in _TOKENS.items()}
_SECRET_WORDS = (b"secret", b"token", b"passw", b"credential", b"authoriz", b"authoris")
_KEY_QUALIFIERS = (b"api", b"access", b"private", b"secret", b"auth", b"account", b"master", b"signing", b"encryption")
_NAME_END = re.compile(rb"[^\w-]")
_MAX_NAME_REST = 40
_ASSIGNED_STRING = re.compile(
    rb"""[\w-]{0,40}(?![\w-])["'\]]{0,2}[ \t]{0,20}(?::[ \t]{0,4}\w{1,20}[ \t]{0,4})?[:=(,][ \t]{0,20}[brfuBRFU]{0,2}"""
    rb"""["'](?:Bearer |Basic )?([^\s"'{}<>$%()]{16,512})["']"""
)
_URL_PASSWORD = re.compile(rb"://[^\s:/@\"']{1,64}:([^\s/@\"'{}<>$%]{12,256})@")
_MIN_ENTROPY = 3.2
"""Bits per character. 32 random hex digits have about 3.7, 24 random base64 characters 4.2, a repeated word 2.5."""
_MIN_MIXING = 1 / 6
_MIN_IDENTIFIER_MIXING = 0.45
"""Changes between lower case, upper case and digits per character: 0.6 in random text, 0.35 in CamelCase2Names,
below 0.1 in paths."""


def check_content(data: bytes) -> Refusal | str:
    """Return the decoded text of `data`, or the reason why it is refused."""
    if b"\0" in data:
        return Refusal.BINARY
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        return Refusal.BINARY
    if any(len(line) > MAX_LINE_LENGTH for line in text.split("\n")):
        return Refusal.MINIFIED
    return Refusal.SECRET if _contains_secret(data) else text


def contains_secret(text: str) -> bool:
    """Return whether `text` has a private key block, a token of a well-known format or a random-looking credential."""
    return _contains_secret(text.encode("utf-8", "surrogatepass"))


def _contains_secret(data: bytes) -> bool:
    if b"PRIVATE KEY" in data and _KEY_BLOCK.search(data):
        return True
    for prefix, pattern in _TOKEN_PATTERNS.items():
        if any(pattern.match(data, at) for at in _occurrences(data, prefix)):
            return True
    if _contains_web_token(data):
        return True
    values = {match[1] for at in _occurrences(data, b"://") if (match := _URL_PASSWORD.match(data, at))}
    lower = data.lower()
    ends = [end for word in _SECRET_WORDS for end in _ends_in_names(lower, word)]
    ends += [end for end in _ends_in_names(lower, b"key") if _is_qualified(lower[max(0, end - 15) : end - 3])]
    values |= {match[1] for end in ends if (match := _ASSIGNED_STRING.match(data, end))}
    return any(_looks_random(value.decode("utf-8", "replace")) for value in values)


def _contains_web_token(data: bytes) -> bool:
    """Return whether `data` has a JSON web token: `eyJ`, a header of _WEB_TOKEN_HEADER bytes, the rest.

    Starts at the dots: the bytes between two dots are then read twice at most, however often `eyJ` occurs in them.
    """
    for dot in _occurrences(data, b".eyJ"):
        if _WEB_TOKEN_REST.match(data, dot):
            before = data[max(0, dot - _WEB_TOKEN_HEADER[-1] - 3) : dot]
            header = before[len(before.rstrip(_WEB_TOKEN_BYTES)) :]
            if 0 <= header.find(b"eyJ") <= len(header) - 3 - _WEB_TOKEN_HEADER[0]:
                return True
    return False


def _is_qualified(before: bytes) -> bool:
    return before.rstrip(b"_-").endswith(_KEY_QUALIFIERS)


def _occurrences(data: bytes, word: bytes) -> Iterator[int]:
    at = data.find(word)
    while at >= 0:
        yield at
        at = data.find(word, at + 1)


def _ends_in_names(data: bytes, word: bytes) -> Iterator[int]:
    """Yield the ends of the occurrences of `word` that end at most _MAX_NAME_REST bytes before the end of their name.

    Reads every name once, so that the time does not depend on how often it contains the word.
    """
    at = data.find(word)
    while at >= 0:
        name_end = end.start() if (end := _NAME_END.search(data, at)) else len(data)
        inside = data.find(word, max(at, name_end - _MAX_NAME_REST - len(word)), name_end)
        while inside >= 0:
            yield inside + len(word)
            inside = data.find(word, inside + 1, name_end)
        at = data.find(word, name_end)


def _looks_random(value: str) -> bool:
    """Return whether a string mixes letters and digits with the entropy of random text."""
    if not (any(c.isdigit() for c in value) and any(c.isalpha() for c in value)):
        return False
    classes = ["0" if c.isdigit() else "A" if c.isupper() else "a" for c in value if c.isalnum()]
    total = len(value)
    mixing = sum(a != b for a, b in pairwise(classes)) / total
    entropy = -sum(n / total * math.log2(n / total) for n in Counter(value).values())
    is_identifier = value.isidentifier() and {"A", "a"} <= set(classes)
    return mixing >= (_MIN_IDENTIFIER_MIXING if is_identifier else _MIN_MIXING) and entropy >= _MIN_ENTROPY
