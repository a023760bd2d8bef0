"""How much of an answer to show to somebody who did not ask: whole lines while likely, else the part that is sure.

The product of a greedy answer's token probabilities says how likely all of it is right, and says it well: on files of
tune.txt, of lines given 0.1–0.2, 0.2–0.4, 0.4–0.7 by the shipped model 0.29, 0.51 and 0.77 were the author's own.
"""

from __future__ import annotations

import math

SURE = 0.4
"""Least probability of a part of a line: it is not finished, so it has to be better than a line."""

LEAST_CHARACTERS = 2
"""Of a part; a single bracket is not worth a look."""


class ConfidentText:
    """Follows an answer token by token and keeps what may be shown of it.

    `least` is the lowest probability of being right up to the end of a line; 0 = everything may be shown.
    """

    def __init__(self, least: float) -> None:
        self.everything = least <= 0
        self._least = -math.inf if self.everything else math.log(least)
        self._part_least = max(self._least, math.log(SURE))
        self._lines = self._part = self._text = ""
        self._logprob = 0.0

    def add(self, text: str, logprob: float) -> bool:
        """The answer so far after one more token, and its summed log-probability (nat). False: no more can be shown."""
        before, self._text = self._text, text
        new = text[len(before) :]
        self._keep_part(before, new, self._logprob)
        self._logprob = logprob
        if "\n" in new and logprob >= self._least:
            self._lines = text.rpartition("\n")[0]
        return logprob >= self._least

    def end(self, logprob: float) -> None:
        """The model ended its answer there, at this summed log-probability, the end's own included."""
        self._keep_part(self._text, "\n", self._logprob)
        if logprob >= self._least:
            self._lines = self._text

    def shown(self) -> str:
        """What may be shown: lines that are likely, else a part of the first."""
        if self.everything:
            return self._text
        return self._lines if self._lines.strip() else self._part

    def _keep_part(self, text: str, follows: str, logprob: float) -> None:
        """`text`, if it is sure, lies in the first line that is not blank and breaks no word."""
        inside = "\n" not in text.strip()
        broken = bool(text and follows) and _is_word(text[-1]) and _is_word(follows[0])
        if inside and not broken and logprob >= self._part_least and len(text.strip()) >= LEAST_CHARACTERS:
            self._part = text


def _is_word(letter: str) -> bool:
    return letter.isalnum() or letter == "_"
