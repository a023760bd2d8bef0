"""`bench lines`, as typing asks: how much ghost text is shown, and how much of it is what the author wrote?

A hole's text is compared from its beginning: a suggestion is right if the author's text begins with it. Characters
count per place, so that silence, a short part and a long wrong line can be weighed against each other.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence

from c2l_lab.benchmarks.lines import holes
from c2l_lab.benchmarks.result_cache import ResultCache, Values
from c2l_lab.benchmarks.stats import Row, row
from c2l_lsp.engine import wire
from c2l_lsp.engine.completion.complete import Completer
from c2l_lsp.engine.completion.decode import Decoder
from c2l_lsp.model.adapter.lora import AdapterSlot
from c2l_lsp.model.lm.base import BaseModel

SPANS = ("whole_line", "lines_3_to_5")
"""Where ghost text appears by itself: at a line's beginning, with the text below in view."""

_UNHURRIED = 60_000  # ms: what is measured does not depend on the machine


def measure(
    model: BaseModel, repos: dict[str, list[str]], leasts: Sequence[float], *, tasks: int, context: int = 1024,
    cache: ResultCache | None = None, say: Callable[[str], None] = lambda line: None,
) -> list[Row]:  # fmt: skip
    """Rows of each `minConfidence` among `leasts`; the unit of statistics is the repository. `cache` as in `holes`."""
    cache = cache or ResultCache()
    completer = Completer(model, Decoder(model, AdapterSlot(model)))
    found: dict[tuple[float, str], list[float]] = defaultdict(list)
    for at, (repo, texts) in enumerate(repos.items(), start=1):
        for least in leasts:

            def measured(repo: str = repo, texts: list[str] = texts, least: float = least) -> Values:
                return _means(_scores(completer, repo, texts, least, tasks, context))

            for name, value in cache.get_or_compute(("unasked", least, tasks, context, repo), texts, measured).items():
                found[least, name].append(value)
        say(f"unasked: {at} of {len(repos)} repositories")
    return [
        row(f"unasked/{name}", f"{model.id}, minConfidence {least:g}", values, "share" if "chars" not in name else "1")
        for (least, name), values in found.items()
    ]


def _scores(
    completer: Completer, repo: str, texts: Sequence[str], least: float, tasks: int, context: int
) -> list[tuple[bool, bool, int]]:
    asked = [hole for span in SPANS for hole in holes.holes(repo, texts, span, tasks)]
    return [_score(hole.target, _text(completer, hole, least, context)) for hole in asked]


def _text(completer: Completer, hole: holes.Hole, least: float, context: int) -> str:
    request = wire.Complete(
        folder="", path="", language="python", prefix=hole.prefix, suffix=hole.suffix, min_confidence=least,
        max_latency_ms=_UNHURRIED, max_context_tokens=context,
    )  # fmt: skip
    texts = completer.complete(request, generation=0, kv_key="", cancelled=lambda: False).texts
    return texts[0].rstrip() if texts else ""


def _score(target: str, text: str) -> tuple[bool, bool, int]:
    """(shown, right, characters)."""
    return bool(text), target.startswith(text), len(text)


def _means(scores: Sequence[tuple[bool, bool, int]]) -> Values:
    """The means of one repository; without any text shown, nothing is said of how much of it is right."""
    if not scores:
        return {}
    shown = [(right, size) for seen, right, size in scores if seen]
    found = {
        "shown": len(shown) / len(scores),
        "right_chars": sum(size for right, size in shown if right) / len(scores),
        "wrong_chars": sum(size for right, size in shown if not right) / len(scores),
    }
    return found | ({"right": sum(right for right, _ in shown) / len(shown)} if shown else {})
