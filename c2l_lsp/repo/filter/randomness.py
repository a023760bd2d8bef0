"""How many bits of evidence each character brings that the text before it is random, not written by a person.

The evidence for a run of characters is the log-likelihood ratio

    Σ  log2 p_random(c) − log2 p_text(c | the characters before it)

p_text is a small model of source code and prose: the class of a character (lower case, upper case, digit, signs) given
the classes of the three characters before it, then the letter given the two letters before it. p_random is uniform over
one of ALPHABETS. At each character counts the best run that ends there, under the best alphabet. Names do not matter.
32 random hex digits have about 40 bits, 20 random letters and digits 50; identifiers, paths and sentences stay below
10.

`c2l-lab train screen` estimates the model. Its file holds costs in 1/16 bit: [10⁴] of classes, [27³] of letters,
[129] of digits and signs.
"""

from __future__ import annotations

import string
from functools import cache
from importlib import resources
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from c2l_lsp.cooperative import Slices, drain
from c2l_lsp.redaction import Span

COSTS_FILE = "literal_costs.bin"
UNITS = 16
"""Costs are in 1/UNITS bit."""

MIN_RUN = 10
MIN_BITS = 12
"""A run of MIN_RUN characters with this evidence is random, whatever stands before it."""

MIN_SIGN_BITS = 45
"""As MIN_BITS, for runs in the alphabet with signs: regular expressions and format strings are rare text, too."""

CLASSES, LETTERS, SYMBOLS = 10, 27, 129
_BLOCK = 1 << 13  # characters a step: about 5 ms
_HEX, _LOWER, _UPPER = string.digits + "abcdef", string.ascii_lowercase, string.ascii_uppercase
_SIGNS = "".join(c for c in map(chr, range(33, 127)) if c not in "\"'`\\")
ALPHABETS = (
    _HEX, _HEX.upper(), _HEX + "-", _HEX.upper() + "-", _LOWER, _LOWER + string.digits, _UPPER + string.digits,
    _LOWER + _UPPER + string.digits + "-_", _SIGNS,
)  # fmt: skip
"""The characters that a random text may consist of. The last one is the alphabet with signs."""

_Ints = NDArray[np.int64]


def _class_of(code: int) -> int:
    character = chr(code)
    if code == SYMBOLS - 1:
        return 9
    if not 32 < code < 127 or character in "\"'`":
        return 0
    if character.islower():
        return 1
    if character.isupper():
        return 2
    return 3 if character.isdigit() else {"_": 4, "-": 5, ".": 6, "/": 7}.get(character, 8)


CLASS_OF = np.array([_class_of(code) for code in range(SYMBOLS)])
LETTER_OF = np.array([(_LOWER.find(chr(code).lower()) + 1) if code < SYMBOLS - 1 else 0 for code in range(SYMBOLS)])


class Evidence(NamedTuple):
    """`bits` [n] is the evidence at each character of a text, `runs` are its random runs, in order and apart."""

    bits: _Ints
    runs: list[Span]

    def within(self, start: int, end: int) -> float:
        """Return the strongest evidence within a part of the text, in bits."""
        return float(self.bits[start:end].max(initial=0))


def codes_of(text: str) -> _Ints:
    """Return the code points of a text [n], with SYMBOLS − 1 for each that is not ASCII."""
    points = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)
    return np.minimum(points, SYMBOLS - 1).astype(np.int64)


def contexts(codes: _Ints) -> tuple[_Ints, _Ints]:
    """Return the index of each character in the class table and in the letter table."""
    classes = np.concatenate([np.zeros(3, np.int64), CLASS_OF[codes]])
    letters = np.concatenate([np.zeros(2, np.int64), LETTER_OF[codes]])
    by_class = ((classes[:-3] * CLASSES + classes[1:-2]) * CLASSES + classes[2:-1]) * CLASSES + classes[3:]
    return by_class, (letters[:-2] * LETTERS + letters[1:-1]) * LETTERS + letters[2:]


def evidence(text: str) -> Evidence:
    """As `evidence_in_slices`, at once."""
    return drain(evidence_in_slices(text))


def evidence_in_slices(text: str) -> Slices[Evidence]:
    """Return the evidence at each character of a text, and its random runs. A step is one block."""
    bits, found = np.zeros(len(text), np.int64), list[Span]()
    for start, end in pairwise(_cuts(text)):
        bits[start:end], runs = _score(codes_of(text[start:end]))
        found += [(start + a, start + b) for a, b in runs]
        yield
    return Evidence(bits, found)


def _cuts(text: str) -> list[int]:
    """Block borders: at line breaks, as no random run extends over one."""
    cuts = [0]
    while len(text) - cuts[-1] > _BLOCK:
        at = text.rfind("\n", cuts[-1], cuts[-1] + _BLOCK) + 1
        cuts.append(at if at > cuts[-1] else cuts[-1] + _BLOCK)
    return [*cuts, len(text)]


def _score(codes: _Ints) -> tuple[_Ints, list[Span]]:
    """The evidence in bits at each character, and the random runs."""
    by_class, by_letter = contexts(codes)
    tables = _tables()
    cost = tables.classes[by_class] + tables.letters[by_letter] + tables.symbols[codes]
    strongest, spans = np.zeros(len(codes), np.int64), list[Span]()
    for number, gains in enumerate(tables.alphabets):
        total = np.concatenate([[0], np.cumsum(cost + gains[codes])])
        lowest = np.minimum.accumulate(total)
        gained = (total - lowest)[1:]
        signs = number == len(tables.alphabets) - 1
        if not signs:
            np.maximum(strongest, gained, out=strongest)
        spans += _runs(codes, lowest, gained, MIN_SIGN_BITS if signs else MIN_BITS)
    return strongest // UNITS, merged(spans)


def _runs(codes: _Ints, lowest: _Ints, gained: _Ints, least: int) -> list[Span]:
    """Runs with at least `least` bits: they begin where the sum was lowest and end where it is highest."""
    strong = np.flatnonzero(gained >= least * UNITS)
    if not len(strong):
        return []
    firsts = np.concatenate([[0], np.flatnonzero(np.diff(strong) > 1) + 1])
    sizes = np.diff(firsts, append=len(strong))
    highest = np.repeat(np.maximum.reduceat(gained[strong], firsts), sizes)
    peaks = np.where(gained[strong] == highest, strong, len(codes))
    ends = np.minimum.reduceat(peaks, firsts) + 1
    starts = np.searchsorted(-lowest, -lowest[ends], side="left")
    wanted = (ends - starts >= MIN_RUN) & ~_are_sequences(codes, starts, ends)
    return list(zip(starts[wanted].tolist(), ends[wanted].tolist(), strict=True))


def _are_sequences(codes: _Ints, starts: _Ints, ends: _Ints) -> NDArray[np.bool_]:
    """Whether most characters of each run repeat or follow the one before, as in `~~~~` and `abcd`."""
    steps = np.diff(codes, prepend=codes[0])
    count = np.concatenate([[0], np.cumsum((steps == 0) | (steps == 1))])
    return np.asarray(2 * (count[ends] - count[starts + 1]) > ends - starts)


def merged(spans: list[Span]) -> list[Span]:
    """Return spans in order, with those that touch or overlap joined."""
    out: list[Span] = []
    for start, end in sorted(spans):
        if out and start <= out[-1][1]:
            out[-1] = (out[-1][0], max(out[-1][1], end))
        else:
            out.append((start, end))
    return out


class _Tables(NamedTuple):
    classes: _Ints
    letters: _Ints
    symbols: _Ints
    alphabets: list[_Ints]


@cache
def _tables() -> _Tables:
    data = resources.files(__package__).joinpath(COSTS_FILE).read_bytes()
    costs = np.frombuffer(data, np.uint8).astype(np.int64)
    classes, letters, symbols = np.split(costs, [CLASSES**4, CLASSES**4 + LETTERS**3])
    return _Tables(classes, letters, symbols, [_gains(alphabet) for alphabet in ALPHABETS])


def _gains(alphabet: str) -> _Ints:
    """log2 p_random of each code. A code outside the alphabet ends every run."""
    gains = np.full(SYMBOLS, -(1 << 30), np.int64)
    gains[[ord(character) for character in alphabet]] = -round(np.log2(len(alphabet)) * UNITS)
    return gains
