"""Thresholds are chosen so that wrong texts are rare and right ones are shown."""

from __future__ import annotations

import math

from c2l_lab.benchmarks.perf.typing import Key, Place
from c2l_lab.benchmarks.typing import choose
from c2l_lab.benchmarks.typing.choose import Simulation, TracedPlace
from c2l_lab.benchmarks.typing.traces import Trace

from c2l_lsp.engine.completion.thresholds import Thresholds


def traced(text: str, answers: dict[int, tuple[str, float]]) -> TracedPlace:
    place = Place("a.py", "x = ", "\n", tuple(Key(0.1, letter) for letter in text))
    return TracedPlace(place, {at: Trace([one], [math.log(p)], math.log(p)) for at, (one, p) in answers.items()})


PLACES = [traced("alpha", {1: ("lpha", 0.7)}), traced("alpha", {1: ("xyzw", 0.35), 2: ("pha", 0.7)})]


def test_a_threshold_between_right_and_wrong_shows_the_right_ones_only() -> None:
    low, high = (Simulation(PLACES).counts(Thresholds(line=line, part=0.9)) for line in (0.1, 0.5))
    assert (choose.wrong(low), choose.wrong(high)) == (40.0, 0.0)
    assert choose.saved(high) >= choose.saved(low) > 0


def test_the_best_keeps_the_bound_and_saves_most() -> None:
    simulation = Simulation(PLACES)
    results = [(one, simulation.counts(one)) for one in choose.grid()]
    thresholds, counts = choose.best(results, 20)
    assert thresholds.line > 0.35
    assert choose.wrong(counts) <= 20
    assert choose.best(results[:1], -1.0) == results[0]  # none keeps the bound
