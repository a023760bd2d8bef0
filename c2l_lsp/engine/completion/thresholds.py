"""All confidence thresholds of completions, for each model. `c2l-lab bench thresholds` chooses them on tuning text."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Thresholds:
    """Lowest confidences of what is shown.

    `line`: an automatic text up to the end of a line. `part`: an automatic text that ends inside its first line;
    `characters`: its least length. `later`: a line after the first, given the lines before it. `candidate`: the first
    line of the second and third candidate of an explicit request.
    """

    line: float = 0.1
    part: float = 0.4
    characters: int = 2
    later: float = 0.5
    candidate: float = 0.1


OTHER = Thresholds(line=0.5, part=0.7)
"""For models that nobody has chosen thresholds for: those of the larger shipped model, which show less."""

SHIPPED: dict[str, Thresholds] = {
    "c2l-nano": Thresholds(line=0.3, part=0.55, characters=2),
    "c2l-small": Thresholds(line=0.5, part=0.7, characters=2),
}
"""Chosen on repositories of tune.txt, without adapter, so that at most 16 wrong characters are shown per 100 typed:

    model       places   keystrokes saved, wrong characters   with 0.1 for a line and 0.4 for a part
    c2l-nano       102   33.4 %, 15.6                         37.5 %, 37.8
    c2l-small       66   43.0 %, 13.1                         51.7 %, 65.0
"""


def of(model: str) -> Thresholds:
    """Return the thresholds of a model by its id."""
    return SHIPPED.get(model, OTHER)
