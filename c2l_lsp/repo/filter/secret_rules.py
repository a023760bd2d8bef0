"""Where a text may hold a secret because of its form or its name. `screen` decides with these and with the evidence.

Every rule first finds fixed words and then looks at a bounded part of the text behind each: its time is proportional to
the text, hostile text included. Each is a generator of candidates; it yields often, so that the caller can pause.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from enum import Enum
from functools import cache
from importlib import resources
from typing import NamedTuple

from c2l_lsp.redaction import Span

RULES_FILE = "detector_rules.json"


class Name(Enum):
    """What a name says of the value that belongs to it."""

    NONE = 0
    KEY = 1
    """A key or token, which may as well be the key of a dictionary or a token of a parser."""
    PASSWORD = 2
    GROUPS = 3
    """No name, but groups of four letters, as providers of mail make passwords."""


class Candidate(NamedTuple):
    """A part of the text that may be a secret. A certain one needs no evidence."""

    start: int
    end: int
    name: Name = Name.NONE
    quoted: bool = True
    certain: bool = False


Candidates = Iterator[Candidate | None]
"""None: a pause is possible."""


class Subject(NamedTuple):
    """A text, and the same text in lower case, character for character."""

    text: str
    lower: str

    @classmethod
    def of(cls, text: str) -> Subject:
        """Return the subject of a text."""
        lower = text.lower()
        return cls(text, lower if len(lower) == len(text) else text.translate(_ASCII_LOWER))


_ASCII_LOWER = {upper: upper + 32 for upper in range(ord("A"), ord("Z") + 1)}


_BLOCK = 1 << 14  # characters between two pauses of a search


def _matches(pattern: re.Pattern[str], text: str) -> Iterator[re.Match[str] | None]:
    """As `pattern.finditer(text)`, with None at every pause. A match lies within one line."""
    at = 0
    while at < len(text):
        end = at + _BLOCK
        end = len(text) if end >= len(text) else text.rfind("\n", at, end) + 1 or end
        yield from pattern.finditer(text, at, end)
        yield None
        at = end


def _occurrences(text: str, word: str) -> Iterator[int]:
    at = text.find(word)
    while at >= 0:
        yield at
        at = text.find(word, at + 1)


# --- forms -----------------------------------------------------------------------------------------------------------

_KEY_BEGIN = re.compile(r"-----BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----")
_KEY_END = re.compile(r"-----END [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----")
_MAX_KEY = 16_000  # characters


def key_blocks(subject: Subject) -> Candidates:
    """Private keys from BEGIN to END. Without an END, the key ends with the paragraph."""
    end = 0
    for at in _occurrences(subject.text, "-----BEGIN "):
        yield None
        begin = _KEY_BEGIN.match(subject.text, at) if at >= end else None
        if begin is not None:
            limit = begin.end() + _MAX_KEY
            closing = _KEY_END.search(subject.text, begin.end(), limit)
            blank = subject.text.find("\n\n", begin.end(), limit)
            end = closing.end() if closing else blank if blank >= 0 else min(limit, len(subject.text))
            yield Candidate(at, end, certain=True)


class _Detector(NamedTuple):
    words: tuple[str, ...]
    pattern: str

    def compiled(self) -> re.Pattern[str]:
        return _compiled(self.pattern)


_compiled = cache(re.compile)


@cache
def _detectors() -> tuple[_Detector, ...]:
    data = resources.files(__package__).joinpath(RULES_FILE).read_text(encoding="utf-8")
    return tuple(_Detector(tuple(rule["words"]), rule["pattern"]) for rule in json.loads(data)["rules"])


def known_forms(subject: Subject) -> Candidates:
    """Matches of the rules of gitleaks. A rule is tested where one of its words occurs."""
    for detector in _detectors():
        for word in detector.words:
            for at in _occurrences(subject.lower, word):
                found = detector.compiled().match(subject.text, at)
                yield None if found is None else Candidate(*_value(found), certain=True)
            yield None


def _value(found: re.Match[str]) -> Span:
    """The secret in a match: the first group that took part, or all of it, without quotes around it."""
    number = next((n for n in range(1, found.re.groups + 1) if found.start(n) >= 0), 0)
    value = found[number]
    start = found.start(number) + len(value) - len(value.lstrip(_QUOTES))
    return start, max(start + 1, found.end(number) - len(value) + len(value.rstrip(_QUOTES)))


_QUOTES = "\"'`"
_URL_PASSWORD = re.compile(r"://([^\s:/@\"'`]{0,64}):([^\s/@\"'`]{4,256})@")
_ORDINARY_PASSWORDS = ("passw", "pass", "secret", "user", "pwd", "token", "field", "required", "invalid")
_MIN_CHOSEN = 6  # characters of a password without a digit


def url_passwords(subject: Subject) -> Candidates:
    """`scheme://user:password@host`, except words that stand for a password and the user's own name."""
    for at in _occurrences(subject.text, "://"):
        found = _URL_PASSWORD.match(subject.text, at)
        ordinary = found is None or found[2].lower() in ("password", "passwd", "pass", "secret", found[1].lower())
        yield None if found is None or ordinary or is_placeholder(found[2]) else Candidate(*found.span(2), certain=True)


_ESCAPES = re.compile(r"(?:\\x[0-9a-fA-F]{2}){16,}")


_URL = re.compile(r"[^\s\"'`<>]{8,512}")


def webhooks(subject: Subject) -> Candidates:
    """URLs that whoever knows them may post to."""
    for at in _occurrences(subject.text, "://"):
        found = _URL.match(subject.text, at)
        yield Candidate(*found.span(), Name.KEY) if found is not None and "hook" in found[0].lower() else None


def escaped_bytes(subject: Subject) -> Candidates:
    """Sixteen or more bytes in a row that are written as `\\x..`, hardly any of them twice."""
    for found in _matches(_ESCAPES, subject.text):
        if found is None:
            yield None
            continue
        escapes = found[0].lower().split("\\x")[1:]
        yield Candidate(*found.span(), certain=True) if len(set(escapes)) >= 0.7 * min(len(escapes), 100) else None


_WORDS = re.compile(r"(?<![a-z])[a-z]{3,8}(?: [a-z]{3,8}){11,}")
_PHRASE_WORDS = 12
_NOT_IN_PHRASES = frozenset(
    """the for and with are was were not has have had but can its from when then than this that they them
    will would should must may use uses used set get new any all only each one two name names file files
    value values line lines which into does did been also more most over such some same both other their
    there here where what""".split()  # noqa: SIM905
)
_APP_PASSWORD = re.compile(r"([\"'`])([a-z]{4}(?: [a-z]{4}){3})\1")
_CHOSEN = re.compile(r"(?<![A-Za-z])[A-Z][A-Za-z]{2,24}[0-9]{2,4}[!@#$%^&*?](?=[\s\"'`<]|$)")


def phrases(subject: Subject) -> Candidates:
    """Twelve or more plain words in a row without one that sentences are made of, as the phrase of a wallet."""
    for found in _matches(_WORDS, subject.text):
        if found is None:
            yield None
            continue
        start = begin = found.start()
        count = 0
        for word in [*found[0].split(" "), "the"]:
            if word in _NOT_IN_PHRASES:
                if count >= _PHRASE_WORDS:
                    yield Candidate(start, begin - 1, certain=True)
                start, count = begin + len(word) + 1, 0
            else:
                count += 1
            begin += len(word) + 1
            yield None


def chosen_passwords(subject: Subject) -> Candidates:
    """What people choose under rules for passwords: words, a number, a sign. And four groups of four letters."""
    for found in _matches(_CHOSEN, subject.text):
        yield None if found is None else Candidate(*found.span(), certain=True)
    for found in _matches(_APP_PASSWORD, subject.text):
        yield None if found is None else Candidate(*found.span(2), Name.GROUPS)


# --- names -----------------------------------------------------------------------------------------------------------

_PASSWORD_WORDS = ("passw", "pwd", "passphrase", "_pw", "mnemonic", "seed_phrase")
_KEY_WORDS = ("secret", "token", "key", "credential", "auth", "salt", "cookie", "private", "psk", "api_", "webhook")
_NAME_END = re.compile(r"[^\w-]")
_MAX_NAME_REST = 40
_REST = r"[\w-]{0,40}(?![\w-])"
_ASSIGNMENT = (
    r"(?:\(\)[^\n\"'`]{0,60}:\s{1,40}return\s|[\"'`\])]{0,3}(?:\s{0,4}:\s{0,4}[\w.\[\]| ]{1,40}(?==[^=]))?"
    r"\s{0,20}(?:=>|:=|={1,3}|!={1,2}|:|,|\(|or\b|\|\||\?\?|(?=\w{1,20}=)))"
)
_QUOTE = r"\s{0,80}(?:[\w.]{1,30}\(\s{0,80}|\(\s{0,80})?(?:\w{1,20}\s?[=:]\s?)?[brfuBRFU@]{0,2}(\"\"\"|'''|[\"'`])"
_QUOTED = re.compile(rf"{_REST}{_ASSIGNMENT}{_QUOTE}((?:\\.|(?!\1)[^\\\n]){{4,512}})(?:\1|$)")
_PLAIN = re.compile(rf"{_REST}[\"']?\s{{0,3}}[=:]\s{{0,3}}([^\s\"'`,;<>(){{}}\[\]&]{{6,120}})(?![^\s\"'`,;)&])")


def named_values(subject: Subject) -> Candidates:
    """Values that are given to a name of a password, key or token: literals, and words in comments and settings."""
    for kind, words in ((Name.PASSWORD, _PASSWORD_WORDS), (Name.KEY, _KEY_WORDS)):
        for word in words:
            for end in _ends_in_names(subject.lower, word):
                yield None
                if (found := _QUOTED.match(subject.text, end)) is not None:
                    yield Candidate(*found.span(2), kind)
                elif (found := _PLAIN.match(subject.text, end)) is not None:
                    yield Candidate(*found.span(1), kind, quoted=False)


def _ends_in_names(text: str, word: str) -> Iterator[int]:
    """Yield the ends of the occurrences of `word` that end at most _MAX_NAME_REST characters before their name's end.

    Reads every name once, so that the time does not depend on how often it contains the word.
    """
    at = text.find(word)
    while at >= 0:
        name_end = end.start() if (end := _NAME_END.search(text, at)) else len(text)
        inside = text.find(word, max(at, name_end - _MAX_NAME_REST - len(word)), name_end)
        while inside >= 0:
            yield inside + len(word)
            inside = text.find(word, inside + 1, name_end)
        at = text.find(word, name_end)


def is_chosen(value: str) -> bool:
    """Return whether a value under the name of a password can be one, and is not the name of a field."""
    lower = value.lower()
    ordinary = len(value) < _MIN_CHOSEN or any(word in lower for word in _ORDINARY_PASSWORDS)
    return any(map(str.isdigit, value)) or not ordinary


_PLACEHOLDER = re.compile(
    r"[{}<>]|%\(|%[sdr]$|\$[({]|^\$\w|^\W+$|^(.)\1+$|\.\.\.|(?i:xxx|example|your[-_ ]|changeme|placeholder)"
)


def is_placeholder(value: str) -> bool:
    """Return whether a value stands for one that is filled in later."""
    return _PLACEHOLDER.search(value) is not None
