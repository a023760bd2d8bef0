"""Chooses thresholds on traces of tuning text: the most keystrokes saved at a bounded number of wrong characters."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from c2l_lab.benchmarks.perf.typing import Place
from c2l_lab.benchmarks.typing.author import Author, Counts, Ghost
from c2l_lab.benchmarks.typing.traces import Trace
from c2l_lsp.engine.completion.confidence import ConfidentText
from c2l_lsp.engine.completion.shaping.shape import Shaper
from c2l_lsp.engine.completion.stop_rules import StopRules
from c2l_lsp.engine.completion.thresholds import Thresholds

MOST_WRONG = 16.0
"""Wrong characters shown per 100 characters of the text, at most: the bar is 20, on other text."""


@dataclass(frozen=True)
class TracedPlace:
    """A place and the traces at its keys, by offset in its text."""

    place: Place
    traces: dict[int, Trace]


class Simulation:
    """Types traced places under different thresholds. What is shown of a text at a place is computed once."""

    def __init__(self, places: Sequence[TracedPlace]) -> None:
        self._places, self._shaper = places, Shaper()
        self._shown: dict[tuple[int, int, str, bool], str] = {}

    def counts(self, thresholds: Thresholds) -> Counts:
        """The summed counts of all places."""
        total = Counts()
        for number in range(len(self._places)):
            total.add(self._type(number, thresholds))
        return total

    def _type(self, number: int, thresholds: Thresholds) -> Counts:
        place = self._places[number].place
        text = "".join(key.text for key in place.keys)
        ends, offset = [], 0
        for key in place.keys:
            offset += len(key.text)
            ends.append(offset)
        author = Author(place.prefix, place.suffix, text, pairs=False)
        author.counts.keys, author.counts.characters = len(place.keys), len(text)
        while author.text:
            at = len(text) - len(author.text)
            if not author.accept():
                author.type(text[at : next(end for end in ends if end > at)])
            at = len(text) - len(author.text)
            if author.text and author.ghost is None:
                author.show(self._ghost(number, at, thresholds))
        return author.counts

    def _ghost(self, number: int, at: int, thresholds: Thresholds) -> Ghost | None:
        trace = self._places[number].traces.get(at)
        if trace is None:
            return None
        confident = ConfidentText(thresholds)
        for text, logprob in zip(trace.texts, trace.logprobs, strict=True):
            if not confident.update(text, logprob):
                break
        else:
            if trace.end is not None:
                confident.finish(trace.end)
        shown = self._shape(number, at, confident.result(), whole=not confident.is_part)
        return Ghost(shown) if shown.strip() else None

    def _shape(self, number: int, at: int, text: str, *, whole: bool) -> str:
        key = number, at, text, whole
        if text.strip() and key not in self._shown:
            place = self._places[number].place
            written = "".join(one.text for one in place.keys)[:at]
            trimmed = StopRules.at_cursor(place.prefix + written, place.suffix, "auto").trim(text)
            spot = self._shaper.place("python", place.prefix + written, place.suffix)
            self._shown[key] = self._shaper.shape(trimmed, spot, whole=whole).text
        return self._shown.get(key, "")


def saved(counts: Counts) -> float:
    """The share of keystrokes saved."""
    return 1 - counts.pressed / max(counts.keys, 1)


def wrong(counts: Counts) -> float:
    """Wrong characters shown per 100 characters of the text."""
    return 100 * counts.wrong / max(counts.characters, 1)


def grid() -> Iterable[Thresholds]:
    """The thresholds that are tried."""
    for line in (0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5, 0.6):
        for part in (0.4, 0.45, 0.5, 0.55, 0.6, 0.7):
            for characters in (2, 3, 4):
                for later in (0.5, 0.9):
                    yield Thresholds(line=line, part=part, characters=characters, later=later)


def best(results: Sequence[tuple[Thresholds, Counts]], most_wrong: float = MOST_WRONG) -> tuple[Thresholds, Counts]:
    """The thresholds that save most within the bound; if none keep it, those with the fewest wrong characters."""
    within = [pair for pair in results if wrong(pair[1]) <= most_wrong]
    if within:
        return max(within, key=lambda pair: saved(pair[1]))
    return min(results, key=lambda pair: wrong(pair[1]))
