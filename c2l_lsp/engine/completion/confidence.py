"""Confidence rule for automatic completions: suggest whole lines that are likely, else a likely part of the first line.

The confidence of a text is the product of its token probabilities under greedy decoding. It estimates the probability
that the whole text is right. Calibration of the shipped model, lines of the files in tune.txt:

    confidence          0.1–0.2   0.2–0.4   0.4–0.7
    lines that match      0.29      0.51      0.77
"""

from __future__ import annotations

import math

from c2l_lsp.text import splits_word

MIN_PART_CONFIDENCE = 0.4
"""Lowest confidence of an unfinished line. It saves less typing than a whole line, so it has to be right more often."""

MIN_PART_CHARACTERS = 2
"""Shortest part of a line that is suggested; a single bracket is not worth reading."""


class ConfidentText:
    """Collects a decoded text token by token and returns the part that is likely enough to suggest.

    `min_confidence` is the lowest confidence of a text up to the end of a line; 0 accepts every text.
    """

    def __init__(self, min_confidence: float) -> None:
        self.unlimited = min_confidence <= 0
        self._min_logprob = -math.inf if self.unlimited else math.log(min_confidence)
        self._min_part_logprob = max(self._min_logprob, math.log(MIN_PART_CONFIDENCE))
        self._lines = self._part = self._text = ""
        self._logprob = 0.0

    def update(self, text: str, logprob: float) -> bool:
        """Take the text after one more token and its summed log-probability in nat.

        Return False once the confidence is so low that no longer text can be accepted.
        """
        before, self._text = self._text, text
        new = text[len(before) :]
        self._update_part(before, new, self._logprob)
        self._logprob = logprob
        if "\n" in new and logprob >= self._min_logprob:
            self._lines = text.rpartition("\n")[0]
        return logprob >= self._min_logprob

    def finish(self, logprob: float) -> None:
        """End the text. `logprob` is the sum in nat, with the end token included."""
        self._update_part(self._text, "\n", self._logprob)
        if logprob >= self._min_logprob:
            self._lines = self._text

    def result(self) -> str:
        """Return the likely lines, or if there are none, the likely part of the first line, or ""."""
        if self.unlimited:
            return self._text
        return self._lines if self._lines.strip() else self._part

    @property
    def is_part(self) -> bool:
        """Whether the result ends inside a line."""
        return not self.unlimited and not self._lines.strip()

    def _update_part(self, text: str, following: str, logprob: float) -> None:
        """Accept `text` as a part if it is likely, ends within the first non-blank line and does not split a word."""
        in_first_line = "\n" not in text.strip()
        long_enough = len(text.strip()) >= MIN_PART_CHARACTERS
        if in_first_line and long_enough and logprob >= self._min_part_logprob and not splits_word(text, following):
            self._part = text
