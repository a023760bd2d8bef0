"""The search for secrets in a text: which characters nothing may learn, index or suggest.

A secret is found by its form (`secret_rules`: private keys, the rules of a secret detector, passwords in URLs), by the
name that it is given to, or by its characters alone: a string that looks random is a secret whatever its name
(`randomness`). What is found extends to the whole word or literal; a literal that is built from several counts as one.
The rest of the text is ordinary.
"""

from __future__ import annotations

import re
import time
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from itertools import accumulate
from typing import TypeVar

from c2l_lsp.cooperative import Slices, drain
from c2l_lsp.redaction import Span, redact
from c2l_lsp.repo.filter import secret_rules
from c2l_lsp.repo.filter.randomness import Evidence, evidence_in_slices, merged
from c2l_lsp.repo.filter.secret_rules import Candidate, Name, Subject

_Found = TypeVar("_Found")

STEP_S = 0.01
"""Length of a step in seconds, up to one candidate or one block more."""

_RULES = (
    secret_rules.key_blocks, secret_rules.known_forms, secret_rules.url_passwords, secret_rules.webhooks,
    secret_rules.escaped_bytes, secret_rules.phrases, secret_rules.chosen_passwords, secret_rules.named_values,
)  # fmt: skip

_KEY_BITS = 8
"""Evidence that a value needs under the name of a key or token."""
_MIN_KEY = 6
_GROUP_BITS = 8
"""Evidence that four groups of four letters need together."""
_PLAIN_BITS = 5
"""Evidence that a value without quotes needs under the name of a password."""

_SIGN = r"[+.&\\]\s{0,200}"
_QUOTE = re.compile(r"[\"'`]")
_JOINT = re.compile(rf"[\"'`](?:\s{{1,200}}|\s{{0,200}}{_SIGN})(?:{_SIGN})?[brfuBRFU]{{0,2}}[\"'`]")
_GO_IMPORTS = "import ("
_NEXT_LINE = re.compile(r"\r?\n[ \t]{0,80}([\w+/=-]{4,500})[ \t]{0,80}(?=\r?\n|[\"'`\\])")
_FULL_LINE = 40  # characters of encoded data before which a next line belongs to it
_WORD_END = re.compile(r"[\s\"'`]")
_WORD_STARTS = " \t\r\n\"'`"
_MAX_WORD = 5000


def secret_spans(text: str) -> list[Span]:
    """Return the parts of a text that are secrets, in order and apart."""
    return drain(secret_spans_in_slices(text))


def secret_spans_in_slices(text: str) -> Slices[list[Span]]:
    """As `secret_spans`, in steps of about STEP_S seconds."""
    joints = yield from _paused(_joints(text))
    joined = _Joined(text, joints)
    evidence = yield from evidence_in_slices(joined.text)
    subject = Subject.of(joined.text)
    found = yield from _paused(_secrets(subject, evidence))
    found += yield from _paused(_random(joined.text, evidence))
    yield
    extended = yield from _paused(_extended(joined.text, merged(found)))
    originals = yield from _paused(map(joined.original, extended))
    yield
    return merged(originals)


def redacted_in_slices(text: str) -> Slices[str]:
    """Return the text with every secret replaced by marks."""
    spans = yield from secret_spans_in_slices(text)
    yield
    return redact(text, spans)


def _paused(found: Iterable[_Found | None]) -> Slices[list[_Found]]:
    """What is found, with a pause after STEP_S seconds. None is only an opportunity for one."""
    out, deadline = list[_Found](), time.perf_counter() + STEP_S
    for each in found:
        if each is not None:
            out.append(each)
        if time.perf_counter() >= deadline:
            yield
            deadline = time.perf_counter() + STEP_S
    return out


# --- literals that are built from several ----------------------------------------------------------------------------


def _joints(text: str) -> Iterator[Span | None]:
    """What stands between two literals that form one. A list of imports in Go is no such literal."""
    quote = at = 0
    imports = text.find(_GO_IMPORTS)
    while (found := _QUOTE.search(text, at)) is not None:
        quote = found.start()
        while 0 <= imports < quote:
            at = max(at, (text.find(")", imports) + 1) or len(text))
            imports = text.find(_GO_IMPORTS, at)
        joint = _JOINT.match(text, quote) if quote >= at else None
        yield None if joint is None else joint.span()
        at = max(at, quote + 1) if joint is None else joint.end()


class _Joined:
    """A text without its joints, and where its characters are in the original."""

    def __init__(self, text: str, joints: list[Span]) -> None:
        starts, ends = [0, *(end for _, end in joints)], [*(start for start, _ in joints), len(text)]
        parts = [text[start:end] for start, end in zip(starts, ends, strict=True)]
        self.text = "".join(parts)
        self._starts = [0, *accumulate(map(len, parts[:-1]))]
        self._origins = starts

    def original(self, span: Span) -> Span:
        """Return a non-empty span of the joined text in the original, with the joints in it."""
        return self._place(span[0]), self._place(span[1] - 1) + 1

    def _place(self, at: int) -> int:
        part = bisect_right(self._starts, at) - 1
        return self._origins[part] + at - self._starts[part]


# --- decisions -------------------------------------------------------------------------------------------------------


def _random(text: str, evidence: Evidence) -> Iterator[Span | None]:
    """The runs that look random."""
    for start, end in evidence.runs:
        yield None if _is_ordinary(text[start:end]) else (start, end)


def _secrets(subject: Subject, evidence: Evidence) -> Iterator[Span | None]:
    for rule in _RULES:
        for each in rule(subject):
            is_found = each is not None and _is_secret(subject.text[each.start : each.end], each, evidence)
            yield (each.start, each.end) if each is not None and is_found else None


_RANGE = re.compile(r"A-[FZ]|a-[fz]|0-9")
_CAMEL_CASE = re.compile(r"[A-Z][a-z]{2,}")
_MOST_CAMEL_CASE = 0.6  # of the characters; 0.3 in random letters and digits


def _is_ordinary(run: str) -> bool:
    """Whether a run that looks random is a set of characters of a pattern, or a name of words and numbers."""
    return bool(_RANGE.search(run)) or sum(map(len, _CAMEL_CASE.findall(run))) >= _MOST_CAMEL_CASE * len(run)


def _is_secret(value: str, candidate: Candidate, evidence: Evidence) -> bool:
    if candidate.certain:
        return True
    if secret_rules.is_placeholder(value):
        return False
    if candidate.name is Name.GROUPS:
        return _bits_of_groups(value, candidate.start, evidence) >= _GROUP_BITS
    bits = evidence.within(candidate.start, candidate.end)
    mixed = any(map(str.isdigit, value)) and any(map(str.isalpha, value))
    if candidate.name is not Name.PASSWORD:
        needed = _KEY_BITS if mixed else 2 * _KEY_BITS
        return len(value) >= _MIN_KEY and bits >= needed and not _is_ordinary(value)
    if not candidate.quoted:
        return mixed and (bits >= _PLAIN_BITS or not value.isalnum() or value != value.lower())
    return " " not in value and secret_rules.is_chosen(value)


def _bits_of_groups(value: str, start: int, evidence: Evidence) -> float:
    """The evidence of all words of a value."""
    total, at = 0.0, start
    for word in value.split(" "):
        total += evidence.within(at, at + len(word))
        at += len(word) + 1
    return total


# --- extent ----------------------------------------------------------------------------------------------------------


def _extended(text: str, spans: list[Span]) -> Iterator[Span | None]:
    """The spans with the rest of their words, and further lines of encoded data."""
    reached = 0
    for start, end in spans:
        if end <= reached:
            yield None
            continue
        first, last = _word(text, start, end)
        reached = _last_line(text, first, last)
        yield first, reached


def _word(text: str, start: int, end: int) -> Span:
    """The characters up to a space or quote on both sides."""
    low = max(0, start - _MAX_WORD)
    first = max(text.rfind(character, low, start) for character in _WORD_STARTS) + 1
    after = _WORD_END.search(text, end, end + _MAX_WORD)
    return max(first, low), after.start() if after else min(len(text), end + _MAX_WORD)


def _last_line(text: str, start: int, end: int) -> int:
    while len(text[start:end].rpartition("\n")[2]) >= _FULL_LINE and (line := _NEXT_LINE.match(text, end)) is not None:
        start, end = line.span(1)
    return end
