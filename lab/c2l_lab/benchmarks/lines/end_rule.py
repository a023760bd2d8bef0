"""`bench ends`: does a learned bias of the end token make completions end where the author's text does?

A logistic regression on the author's line ends of tuning text gives the log-odds of an end; the end token's logit is
moved so that it wins where they are above 0. Each rule is then replayed on traces of held-out text, with the same holes
for both sides of a difference.
"""

from __future__ import annotations

import difflib
import math
from collections import defaultdict
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from c2l_lab.benchmarks.lines import holes
from c2l_lab.benchmarks.lines.end_traces import Step, Trace
from c2l_lab.benchmarks.stats import Row, row
from c2l_lsp.engine.completion import thresholds
from c2l_lsp.engine.completion.confidence import ConfidentText
from c2l_lsp.engine.completion.shaping.shape import Shaper
from c2l_lsp.engine.completion.stop_rules import StopRules
from c2l_lsp.model.lm.base import BaseModel

Floats = NDArray[np.float64]

FEATURES = (
    "constant", "margin", "first line", "second line", "ends with a colon", "colon, next line not deeper",
    "open bracket", "next line deeper, nothing open", "next line shallower", "blank line follows",
    "newline as in the text below", "the same, blank line follows",
)  # fmt: skip
"""Inputs of the regression at a line's end. `margin` is the end token's logit minus the best other one."""

SERIES = ("decoder alone", "stop rules", "explicit request")
"""What is applied besides the rule: nothing; the stop rules and shaping; those and the confidence of later lines."""

SPANS = ("lines_3_to_5", "whole_line")
_RIDGE = 1.0
_STEPS = 50
_LEAST = 1e-12


class EndRule:
    """Log-odds of an end from the features of a line's end, for one model."""

    def __init__(self, model: BaseModel, weights: Floats | None = None) -> None:
        self._model = model
        self.weights = np.zeros(len(FEATURES)) if weights is None else weights

    @classmethod
    def fit(cls, model: BaseModel, traces: Sequence[Trace]) -> EndRule:
        """Fit a logistic regression with a ridge penalty to the author's line ends, by Newton's method."""
        rule = cls(model)
        found = [
            (rule.features(trace, trace.target[: end.characters], end.margin, end.token), number == len(trace.ends))
            for trace in traces
            for number, end in enumerate(trace.ends, start=1)
        ]
        inputs, ended = np.array([x for x, _ in found]), np.array([y for _, y in found], dtype=np.float64)
        penalty = np.full(len(FEATURES), _RIDGE)
        penalty[0] = _LEAST  # the constant is free
        for _ in range(_STEPS):
            likely = 1 / (1 + np.exp(-inputs @ rule.weights))
            gradient = inputs.T @ (ended - likely) - penalty * rule.weights
            hessian = (inputs * (likely * (1 - likely))[:, None]).T @ inputs + np.diag(penalty)
            rule.weights = rule.weights + np.linalg.solve(hessian, gradient)
        return rule

    def features(self, trace: Trace, text: str, margin: float, other: int) -> Floats:
        """The inputs [features] after `text`, where `other` is the best token that is no end."""
        lines = (trace.prefix.rpartition("\n")[2] + text).split("\n")
        below = trace.suffix.partition("\n")[2].split("\n")
        following = next((line for line in below if line.strip()), "")
        last, is_blank = lines[-1], not below[0].strip()
        deeper = _indent(following) - _indent(last)
        colon, bracket = last.rstrip().endswith(":"), _open_brackets("\n".join(lines)) > 0
        agrees = self._model.encode(trace.suffix[:200])[:1] == [other]
        found = (
            1.0, margin, len(lines) == 1, len(lines) == 2, colon, colon and deeper <= 0, bracket,
            deeper > 0 and not colon and not bracket, deeper < 0, is_blank, agrees, agrees and is_blank,
        )  # fmt: skip
        return np.array(found, dtype=np.float64)

    def end_logit(self, trace: Trace, text: str, step: Step) -> float:
        """The moved logit of the end token at a step after `text`; the model's own inside a line."""
        if not text.rpartition("\n")[2].strip() or not self._model.decode([step.token]).startswith("\n"):
            return step.end
        margin = step.end - step.best
        return step.best + float(self.weights @ self.features(trace, text, margin, step.token))


class Replay:
    """Texts of traces under a rule; without one the model's own end counts."""

    def __init__(self, model: str, rule: EndRule | None) -> None:
        self._rule, self._thresholds, self._shaper = rule, thresholds.of(model), Shaper()

    def text(self, trace: Trace, series: str) -> str:
        """The text that is suggested in one of SERIES."""
        rules = StopRules.at_cursor(trace.prefix, trace.suffix, "auto")
        requested = series == "explicit request"
        confident = ConfidentText(self._thresholds, requested=requested, unlimited=not requested)
        total, text, stop = 0.0, "", "tokens"
        for step in trace.steps:
            end = step.end if self._rule is None else self._rule.end_logit(trace, text, step)
            norm = _moved(step, end)
            if end > step.best:
                confident.finish(total + end - norm)
                stop = "eos"
                break
            text = trace.text[: step.characters]
            total = total + step.best - norm if text else 0.0  # the forced prefix is not the model's guess
            if text and not confident.update(text, total):
                stop = "unsure"
                break
            if series != "decoder alone" and text and rules.stop_reason(text):
                stop = "rule"
                break
        if series == "decoder alone":
            return text.rstrip()
        incomplete = confident.unlimited and stop == "tokens"
        text = rules.trim(confident.result(), incomplete=incomplete)
        whole = not confident.is_part and not (incomplete and "\n" not in text)
        place = self._shaper.place("python", trace.prefix, trace.suffix)
        return self._shaper.shape(text, place, whole=whole).text


def _moved(step: Step, end: float) -> float:
    """The log-sum-exp of a step's logits with another logit of the end token."""
    others = step.norm + math.log(max(_LEAST, -math.expm1(min(0.0, step.end - step.norm))))
    return step.norm if end == step.end else float(np.logaddexp(others, end))


def rows(model: str, rule: EndRule, traces: Sequence[Trace], say: Callable[[str], None]) -> list[Row]:
    """Exact match, right number of lines and edit similarity of both sides, and their paired differences."""
    found: list[Row] = []
    for series in SERIES:
        say(series)
        sides = {name: _means(traces, Replay(model, one), series) for name, one in (("no", None), ("with", rule))}
        for metric in sides["no"]:
            without, biased = (list(sides[side][metric].values()) for side in ("no", "with"))
            unit = "share"
            found.append(row(f"{metric}/{series}", f"{model}, without", without, unit))
            found.append(row(f"{metric}/{series}", f"{model}, end bias", biased, unit))
            gains = [b - a for a, b in zip(without, biased, strict=True)]
            found.append(row(f"{metric}/{series}/gain", model, gains, unit))
    told = _told([trace for trace in traces if trace.span == SPANS[0]])
    found.append(row(f"exact_match/{SPANS[0]}/decoder alone", f"{model}, told the number of lines", told, "share"))
    weights = zip(FEATURES, rule.weights, strict=True)
    return [*found, *(Row(f"weight/{name}", model, float(weight)) for name, weight in weights)]


def _means(traces: Sequence[Trace], replay: Replay, series: str) -> dict[str, dict[str, float]]:
    """The mean of each metric for each repository."""
    scores: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for trace in traces:
        for metric, value in _score(trace.target, replay.text(trace, series)).items():
            scores[f"{metric}/{trace.span}"][trace.repo].append(value)
    return {metric: {repo: float(np.mean(v)) for repo, v in of.items()} for metric, of in scores.items()}


def _score(target: str, text: str) -> dict[str, float]:
    """Scores of a whole answer, with all its lines also where the hole has one."""
    got, truth = holes.counted(text, SPANS[0]), holes.counted(target, SPANS[0])
    return {
        "exact_match": float(got == truth),
        "number_of_lines": float(got.count("\n") == truth.count("\n")),
        "edit_similarity": difflib.SequenceMatcher(None, got, truth, autojunk=False).ratio(),
        "first_line": float(got.split("\n")[0] == truth.split("\n")[0]),
    }


def _told(traces: Sequence[Trace]) -> list[float]:
    """Exact match by repository if the text ended behind the hole's number of lines: the bound of every rule."""
    right: dict[str, list[bool]] = defaultdict(list)
    for trace in traces:
        lines = trace.text.split("\n")[: trace.target.count("\n") + 1]
        right[trace.repo].append(holes.counted("\n".join(lines), trace.span) == holes.counted(trace.target, trace.span))
    return [float(np.mean(values)) for values in right.values()]


def _indent(line: str) -> int:
    expanded = line.expandtabs(4)
    return len(expanded) - len(expanded.lstrip(" "))


def _open_brackets(text: str) -> int:
    return sum(text.count(one) for one in "([{") - sum(text.count(one) for one in ")]}")
