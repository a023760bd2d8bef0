"""Confidence rule: which part of a decoded text is likely enough to be shown.

The confidence of a text is the product of its token probabilities under greedy decoding. It estimates the probability
that the whole text is right. An automatic text needs it for every line, and an unfinished line needs more. A requested
text is shown whatever its first line is worth; its later lines need a confidence of their own.
"""

from __future__ import annotations

import math

from c2l_lsp.engine.completion.thresholds import OTHER, Thresholds
from c2l_lsp.text import splits_word


class ConfidentText:
    """Collects a decoded text token by token and returns the part that is likely enough to suggest.

    `requested`: the user asked for the text. `unlimited`: every text is accepted.
    """

    def __init__(self, thresholds: Thresholds = OTHER, *, requested: bool = False, unlimited: bool = False) -> None:
        self.unlimited, self._requested = unlimited, requested
        free = unlimited or requested
        self._min_line = -math.inf if free else _log(thresholds.line)
        self._min_part = max(self._min_line, _log(thresholds.part))
        self._min_later = -math.inf if unlimited else _log(thresholds.later)
        self._min_characters = thresholds.characters
        self._lines = self._part = self._text = ""
        self._logprob = 0.0
        self._first_line: float | None = None
        self._line_start: float | None = None
        """Summed log-probability at the end of the first line that is not blank, and at the start of a later one."""

    def update(self, text: str, logprob: float) -> bool:
        """Take the text after one more token and its summed log-probability in nat.

        Return False once the confidence is so low that no longer text can be accepted.
        """
        before, self._text = self._text, text
        new = text[len(before) :]
        self._update_part(before, new, self._logprob)
        self._logprob = logprob
        if "\n" in new and self._is_likely(logprob):
            self._lines = text.rpartition("\n")[0]
            self._start_line(logprob)
        return self._is_likely(logprob)

    def finish(self, logprob: float) -> None:
        """End the text. `logprob` is the sum in nat, with the end token included."""
        self._update_part(self._text, "\n", self._logprob)
        if self._is_likely(logprob):
            self._lines = self._text

    def result(self) -> str:
        """Return the likely lines, or if there are none, the likely part of the first line, or ""."""
        if self.unlimited:
            return self._text
        if self._lines.strip():
            return self._lines
        return self._text if self._requested else self._part

    @property
    def is_part(self) -> bool:
        """Whether the result ends inside a line."""
        return not self.unlimited and not self._lines.strip()

    @property
    def first_line(self) -> float:
        """The summed log-probability in nat of the first line that is not blank."""
        return self._logprob if self._first_line is None else self._first_line

    def _is_likely(self, logprob: float) -> bool:
        """Whether the text so far is likely as a whole, and its last line on its own."""
        later = self._line_start is None or logprob - self._line_start >= self._min_later
        return later and logprob >= self._min_line

    def _start_line(self, logprob: float) -> None:
        if self._lines.strip():
            self._first_line, self._line_start = logprob if self._first_line is None else self._first_line, logprob

    def _update_part(self, text: str, following: str, logprob: float) -> None:
        """Accept `text` as a part if it is likely, ends within the first non-blank line and does not split a word."""
        in_first_line = "\n" not in text.strip()
        long_enough = len(text.strip()) >= self._min_characters
        if in_first_line and long_enough and logprob >= self._min_part and not splits_word(text, following):
            self._part = text


def _log(confidence: float) -> float:
    return math.log(confidence) if confidence > 0 else -math.inf
