from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from c2l_lab.benchmarks.lines import end_rule, end_traces, holes
from c2l_lab.benchmarks.lines.end_rule import FEATURES, EndRule, Replay
from c2l_lab.benchmarks.lines.end_traces import LineEnd, Step, Trace, Tracer

from c2l_lsp.config import Model
from c2l_lsp.engine import wire
from c2l_lsp.engine.completion.complete import Completer
from c2l_lsp.engine.completion.decode import Decoder
from c2l_lsp.model.adapter.lora import AdapterSlot
from c2l_lsp.model.lm import base
from c2l_lsp.model.lm.base import BaseModel

BEFORE = "def area(width, height):\n    return width * height\n\n\n" * 6
HOLE = holes.Hole("a/b", "lines_3_to_5", f"{BEFORE}def volume(width, height, depth):\n    ", "\n    return base\n",
                  "base = area(width, height)\n    base = base * depth\n    print(base)")  # fmt: skip


@pytest.fixture(scope="module")
def nano() -> BaseModel:
    return base.load(Model(device="cpu"))


@pytest.fixture(scope="module")
def trace(nano: BaseModel) -> Trace:
    return Tracer(nano, author=True).trace(HOLE, 0)


def weights(**named: float) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    return np.array([named.get(name.replace(" ", "_"), 0.0) for name in FEATURES])


@pytest.mark.parametrize(("series", "least"), [("stop rules", 0.0), ("explicit request", -1.0)])
def test_replay_without_rule_is_the_engines_completion(
    nano: BaseModel, trace: Trace, series: str, least: float
) -> None:
    request = wire.Complete(
        folder="", path="", language="python", prefix=HOLE.prefix, suffix=HOLE.suffix, min_confidence=least,
        max_latency_ms=60_000, max_context_tokens=end_traces.CONTEXT, max_new_tokens=end_traces.MOST_TOKENS,
        candidates=1, invoked=True,
    )  # fmt: skip
    completer = Completer(nano, Decoder(nano, AdapterSlot(nano)))
    texts = completer.complete(request, generation=0, kv_key="", cancelled=lambda: False).texts
    shown = Replay(nano.id, None).text(trace, series)
    assert ([shown] if shown else []) == texts


def test_a_bias_ends_the_text_at_the_end_of_its_first_line_and_not_inside(nano: BaseModel, trace: Trace) -> None:
    always, never = EndRule(nano, weights(constant=50.0)), EndRule(nano, weights(constant=-50.0))
    assert Replay(nano.id, always).text(trace, "decoder alone") == trace.text.split("\n")[0].rstrip()
    assert Replay(nano.id, never).text(trace, "decoder alone").count("\n") >= 2


def test_margin_as_only_feature_is_the_models_own_end(nano: BaseModel, trace: Trace) -> None:
    own = EndRule(nano, weights(margin=1.0))
    for step, before in zip(trace.steps, [0, *(step.characters for step in trace.steps)], strict=False):
        assert own.end_logit(trace, trace.text[:before], step) == pytest.approx(step.end)


def test_author_has_one_line_end_for_each_line(trace: Trace) -> None:
    assert [trace.target[: end.characters].count("\n") for end in trace.ends] == [0, 1, 2]
    assert trace.target[: trace.ends[-1].characters] == trace.target


def test_fit_finds_what_separates_ends(nano: BaseModel) -> None:
    """Twenty holes that end where the margin is high."""
    ends = [LineEnd(-6.0, 0, 26), LineEnd(-5.5, 0, 50), LineEnd(-1.0, 0, len(HOLE.target))]
    made = [Trace("a/b", HOLE.span, n, HOLE.prefix, HOLE.suffix, HOLE.target, "", [], ends) for n in range(20)]
    rule = EndRule.fit(nano, made)
    odds = [float(rule.weights @ rule.features(made[0], HOLE.target[: e.characters], e.margin, e.token)) for e in ends]
    assert odds[0] < 0 and odds[1] < 0 < odds[2]


def test_collect_continues(nano: BaseModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    repos, counts, file = {"a/b": [(HOLE.prefix + HOLE.target + HOLE.suffix) * 5]}, {"whole_line": 2}, tmp_path / "t"
    monkeypatch.setattr(end_traces, "MOST_LINES", 1)
    tracer = Tracer(nano, author=False)
    first = end_traces.collect(tracer, repos, counts, file, lambda _: None)
    with file.open("a", encoding="utf-8") as stream:
        stream.write('\n{"repo": "a/b", "st')  # a run that was stopped
    monkeypatch.setattr(tracer, "trace", None)  # a second run traces nothing
    assert end_traces.collect(tracer, repos, counts, file, lambda _: None) == first
    assert len(first) == 2
    monkeypatch.undo()
    monkeypatch.setattr(end_traces, "MOST_LINES", 1)
    third = end_traces.collect(tracer, repos, {"whole_line": 3}, file, lambda _: None)
    assert end_traces.collect(tracer, repos, {"whole_line": 3}, file, lambda _: None) == third
    assert third[:2] == first


def test_rows_are_paired(nano: BaseModel, trace: Trace) -> None:
    """A rule that is the model's own end changes nothing."""
    rows = {
        (row.name, row.method): row
        for row in end_rule.rows(nano.id, EndRule(nano, weights(margin=1.0)), [trace], print)
    }
    for series in end_rule.SERIES:
        assert rows[f"edit_similarity/lines_3_to_5/{series}/gain", nano.id].value == 0
    assert ("exact_match/lines_3_to_5/decoder alone", f"{nano.id}, told the number of lines") in rows


def test_moved_logit_keeps_probabilities() -> None:
    logits = np.array([2.0, 1.0, 0.5])
    step = Step(1, end=2.0, best=1.0, norm=float(np.logaddexp.reduce(logits)), characters=1)
    moved = end_rule._moved(step, -1.0)
    assert moved == pytest.approx(np.logaddexp.reduce([-1.0, 1.0, 0.5]))
