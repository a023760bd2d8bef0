"""The metrics. Each function measures one method on one repository and returns values for a JSON file.

Results do not depend on what ran before: embeddings, decoders and windows are made anew or cached by content, so a unit
gives the same values in every run and shard. Times are the exception.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from c2l_lab.benchmarks.adapters import merge
from c2l_lab.benchmarks.adapters.rest_of_line import Lines
from c2l_lab.benchmarks.adapters.scoring import PREFIXES, Reader, read, windows
from c2l_lab.benchmarks.methods.hypernetworks import HypernetworkMethod
from c2l_lab.benchmarks.methods.memory import mean_without
from c2l_lab.benchmarks.methods.protocol import Adapters, Fitted, Method
from c2l_lab.repositories.cases import Case
from c2l_lab.repositories.spans import names_of, spans_of
from c2l_lab.train.memory.held_out import ScoredText, mean_loss, scores
from c2l_lsp.model.adapter.knn_lm import suffixes
from c2l_lsp.model.adapter.lora import Adapter
from c2l_lsp.model.lm.base import BaseModel

LAMBDAS = (0.0, 0.5, 1.0, 1.5, 2.0)
LAST = max(PREFIXES)
Values = dict[str, Any]


@dataclass(frozen=True)
class Amounts:
    """Sample sizes in one repository.

    scored, short_scored: tokens scored at the longest prefix and at each shorter one.
    pair_scored: tokens scored to compare adapters that have LoRA pairs with those of other repositories.
    aged: tokens scored for staleness.
    spans, short_spans: spans completed at the longest prefix and at each shorter one.
    aged_spans: spans completed under states of every age.
    """

    scored: int = 4096
    short_scored: int = 1024
    pair_scored: int = 512
    aged: int = 1024
    spans: int = 24
    short_spans: int = 8
    aged_spans: int = 12

    def at(self, prefix: int) -> int:
        """Tokens to score at a prefix."""
        return self.scored if prefix == LAST else self.short_scored


@dataclass(frozen=True)
class Bench:
    """The arguments that all metrics share."""

    model: BaseModel
    reader: Reader
    lines: Lines
    adapters: Adapters
    amounts: Amounts


def loss(bench: Bench, case: Case, method: Method) -> Values:
    """Loss in nat/token with and without the method, and the method's calibration table, at each prefix."""
    fitted = bench.adapters.fitted(method, case.name)
    found: Values = {"seconds": fitted.seconds, "norm": fitted.adapter.norm if fitted.adapter else 0.0}
    for prefix in PREFIXES:
        chosen, states = bench.reader.base_states(case.name, case.targets, prefix, bench.amounts.at(prefix))
        base = bench.reader.scores(chosen, states, None)
        if fitted.context is None:
            mine = base if fitted.adapter is None else bench.reader.scores(chosen, states, fitted.adapter)
        elif prefix:
            mine = scores(bench.model, read(bench.model, chosen, fitted.context, fitted.budget), None)
        else:
            continue  # without a prefix there is no query
        found[str(prefix)] = {
            "base": base.mean_loss, "loss": mine.mean_loss, "tokens": base.positions,
            "calibration": mine.calibration.tolist(),
        }  # fmt: skip
    return found


def line(bench: Bench, case: Case, method: Method) -> Values:
    """Completions of the rest of a line, by prefix; prefix "1024" is as much of the file as fits."""
    fitted = bench.adapters.fitted(method, case.name)
    known = names_of(case.state.values())
    found: Values = {}
    for prefix in PREFIXES:
        count, seen = (bench.amounts.spans, None) if prefix == LAST else (bench.amounts.short_spans, prefix)
        spans = spans_of(case.targets, known, count)
        answers = bench.lines.ask(case.targets, spans, fitted.adapter, fitted.context, fitted.budget, seen)
        found[str(prefix)] = [answer.plain() for answer in answers]
    return found


def others(bench: Bench, case: Case, method: Method, controls: Sequence[str]) -> Values:
    """The repository's adapter against those of `controls` and against the mean of all others.

    Also the losses along the line from the mean through the repository's adapter.
    """
    own, mean = _adapter(bench.adapters.fitted(method, case.name)), mean_without(method, case.name, bench.adapters)
    theirs = {name: _adapter(bench.adapters.fitted(method, name)) for name in controls}
    pairs = bool(own.pairs)
    found: Values = {"cosine": {name: merge.cosine(own, adapter) for name, adapter in theirs.items()}}
    for prefix in [LAST] if pairs else PREFIXES:
        most = bench.amounts.pair_scored if pairs else bench.amounts.at(prefix)
        chosen, states = bench.reader.base_states(case.name, case.targets, prefix, most)
        score = _scorer(bench, chosen, states)
        cell: Values = {"base": score(None), "own": score(own), "mean": score(mean)}
        cell["others"] = {name: score(adapter) for name, adapter in theirs.items()}
        found[str(prefix)] = cell
        if prefix == LAST:
            control = controls[-1]
            ends = {"own": (own, cell["own"]), "other": (theirs[control], cell["others"][control])}
            found["lambda"] = {
                side: [
                    {0.0: cell["mean"], 1.0: end}[step] if step in (0.0, 1.0) else score(_between(mean, one, step))
                    for step in LAMBDAS
                ]
                for side, (one, end) in ends.items()
            }
    return found


def ages(bench: Bench, case: Case, method: Method) -> Values:
    """Loss and completions in the newest targets, under states of every age and under a state updated through all."""
    if not isinstance(method, HypernetworkMethod):
        return {}
    builder = method.builder(case)
    builder.embed_all([*case.states.values(), *case.trails.values()])
    scored = {path: case.targets[path] for path in case.newest}
    oldest_first = [case.trails[age] for age in sorted(case.trails, reverse=True)]
    made = {str(age): builder.adapter(builder.snapshot(texts)) for age, texts in sorted(case.trails.items())}
    made["followed"] = builder.adapter(builder.replayed(oldest_first))
    since = [case.trails[age] for age in sorted(case.trails, reverse=True) if age <= 20]
    made["followed20"] = builder.adapter(builder.replayed(since))
    chosen = windows(bench.model, scored, 256, bench.amounts.aged)
    score = _scorer(bench, chosen, read(bench.model, chosen))
    found: Values = {"base": score(None), "loss": {age: score(adapter) for age, adapter in made.items()}}
    now = case.trails[0]
    found["changed"] = {
        str(age): sum(now.get(path) != text for path, text in texts.items()) for age, texts in case.trails.items()
    }
    if not made["0"].pairs:  # LoRA pairs would need a new forward pass of the prompt for each
        spans = spans_of(scored, names_of(case.trails[0].values()), bench.amounts.aged_spans)
        found["exact"] = {
            age: [answer.exact for answer in bench.lines.ask(scored, spans, adapter)] for age, adapter in made.items()
        }
    return found


def rename(bench: Bench, case: Case, method: Method) -> Values:
    """Log-likelihood at its callers of a new name for a definition: before the rename, after it, and reverted."""
    chosen = renamed(case)
    if not isinstance(method, HypernetworkMethod) or chosen is None:
        return {}
    old, new = chosen
    builder = method.builder(case)
    builder.embed_all([*case.states.values(), *case.trails.values()])
    there = {path: _replaced(text, old, new) for path, text in case.state.items()}
    before = builder.snapshot(case.state)
    after = builder.changed(before, case.state, there)
    back = builder.changed(after, there, case.state)
    sites = [(_without(text[: m.start()], old), new) for text in case.targets.values() for m in _first(text, old)]
    found: Values = {"old": old, "new": new, "sites": len(sites)}
    for name, state in (("before", before), ("after", after), ("reverted", back)):
        found[name] = _likelihood(bench.model, sites, builder.adapter(state))
    return found


def renamed(case: Case) -> tuple[str, str] | None:
    """The name defined in the state that most targets use, and a new name that does not occur in the repository."""
    known = names_of([*case.state.values(), *case.targets.values()])
    counts: dict[str, int] = {}
    for text in case.state.values():
        for name in re.findall(r"^(?:    )?(?:def|class) ([^\W_]\w{4,})", text, re.MULTILINE):
            counts[name] = sum(bool(_first(target, name)) for target in case.targets.values())
    best = max(sorted(counts), key=lambda name: counts[name], default="")
    if not best or not counts[best]:
        return None
    for first, second in (("harvest", "lantern"), ("copper", "meadow"), ("velvet", "anchor")):
        new = first.title() + second.title() if best[0].isupper() else f"{first}_{second}"
        if new not in known:
            return best, new
    return None


def _adapter(fitted: Fitted) -> Adapter:
    assert fitted.adapter is not None  # noqa: S101 - methods with own adapters make one
    return fitted.adapter


def _scorer(bench: Bench, chosen: Any, states: Any) -> Any:  # noqa: ANN401 - a closure over windows and their states
    return lambda adapter: bench.reader.loss(chosen, states, adapter)


def _between(mean: Adapter, one: Adapter, step: float) -> Adapter:
    return merge.combine([(1 - step, merge.dense(mean)), (step, merge.dense(one))], mean.base, "between")


def _first(text: str, name: str) -> list[re.Match[str]]:
    """The first call of a name in a file, as a list of at most one match."""
    called = re.search(rf"(?<!\w)(?<!def )(?<!class ){re.escape(name)}(?=\()", text)
    return [] if called is None else [called]


def _without(text: str, name: str) -> str:
    """A text without the lines that contain a name; the last line, with the call, stays."""
    lines = text.splitlines(keepends=True)
    return "".join(part for part in lines[:-1] if not re.search(rf"(?<!\w){re.escape(name)}(?!\w)", part)) + (
        lines[-1] if lines else ""
    )


def _replaced(text: str, old: str, new: str) -> str:
    return re.sub(rf"(?<!\w){re.escape(old)}(?!\w)", new, text)


@torch.inference_mode()
def _likelihood(model: BaseModel, sites: Sequence[tuple[str, str]], adapter: Adapter) -> float:
    """The mean log-probability of the name over the sites, each after up to 256 tokens of the text before it."""
    if not sites:
        return float("nan")
    total = 0.0
    with merge.merged(model, adapter):
        for before, name in sites:
            seen = [model.start_id, *model.encode(before)[-256:]]
            ids = [*seen, *model.encode(name)]
            rows = torch.tensor([ids], device=model.device)
            hidden, targets = model.hidden(rows[:, :-1])[0, len(seen) - 1 :], rows[0, len(seen) :]
            scored = ScoredText(hidden, targets, suffixes(ids, len(seen) - 1, len(ids) - 1))
            total -= mean_loss(model, scored, adapter.final_map, adapter.knn) * len(targets)
    return total / len(sites)
