"""Automatic completions in `bench lines`: how much ghost text is shown, and how much of it is right.

A suggestion is right if the text of the hole starts with it. Characters are counted per hole, so that no suggestion, a
short right one and a long wrong one can be compared.
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
"""Holes where an automatic completion is usual: at the start of a line."""

_MAX_LATENCY_MS = 60_000  # ms; results must not depend on the speed of the machine


def measure(
    model: BaseModel, repos: dict[str, list[str]], leasts: Sequence[float], *, tasks: int, context: int = 1024,
    cache: ResultCache | None = None, say: Callable[[str], None] = lambda line: None,
) -> list[Row]:  # fmt: skip
    """The rows for each value of `minConfidence` in `leasts`. `cache`: see `holes.measure`."""
    cache = cache or ResultCache()
    completer = Completer(model, Decoder(model, AdapterSlot(model)))
    found: dict[tuple[float, str], list[float]] = defaultdict(list)
    for at, (repo, texts) in enumerate(repos.items(), start=1):
        for least in leasts:

            def measured(repo: str = repo, texts: list[str] = texts, least: float = least) -> Values:
                return _means(_scores(completer, repo, texts, least, tasks, context))

            for name, value in cache.get_or_compute(("unasked", least, tasks, context, repo), texts, measured).items():
                found[least, name].append(value)
        say(f"automatic: {at} of {len(repos)} repositories")
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
        max_latency_ms=_MAX_LATENCY_MS, max_context_tokens=context,
    )  # fmt: skip
    texts = completer.complete(request, generation=0, kv_key="", cancelled=lambda: False).texts
    return texts[0].rstrip() if texts else ""


def _score(target: str, text: str) -> tuple[bool, bool, int]:
    """(shown, right, number of characters)."""
    return bool(text), target.startswith(text), len(text)


def _means(scores: Sequence[tuple[bool, bool, int]]) -> Values:
    """The means of one repository. Without a shown text there is no share of right ones."""
    if not scores:
        return {}
    shown = [(right, size) for seen, right, size in scores if seen]
    found = {
        "shown": len(shown) / len(scores),
        "right_chars": sum(size for right, size in shown if right) / len(scores),
        "wrong_chars": sum(size for right, size in shown if not right) / len(scores),
    }
    return found | ({"right": sum(right for right, _ in shown) / len(shown)} if shown else {})
