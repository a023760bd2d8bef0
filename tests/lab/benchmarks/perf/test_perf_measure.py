"""Rows and bars, continuation of result files, keystrokes from commits."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
from c2l_lab.benchmarks.perf import measure, run
from c2l_lab.benchmarks.perf.measure import Bar, PerfRow
from c2l_lab.benchmarks.perf.typing import keys, places

from c2l_lsp.errors import EngineError, SettingError, StorageError


def test_bar_applies_to_ratio_if_there_is_one():
    assert measure.row("a", [1.0, 2.0, 9.0], "ms", bar=Bar(2.0)).verdict == "PASS"
    assert measure.row("a", [1.0, 2.0, 9.0], "ms", ratio=0.5, bar=Bar(0.4)).verdict == "FAIL"
    assert measure.row("a", [1.0], "ms", ratio=0.8, bar=Bar(0.8, least=True)).verdict == "PASS"
    assert measure.row("a", [1.0], "ms").verdict == ""
    assert measure.row("a", [float("nan")], "ms", bar=Bar(2.0)).verdict == "FAIL"
    found = measure.row("a", [3.0, 1.0, 2.0, 5.0, 4.0], "ms")
    assert (found.value, found.low, found.high, found.repeats) == (3.0, 2.0, 4.0, 5)


def test_missing_value_does_not_pass():
    gone = measure.absent("decode/llama.cpp/Q8_0", "ms/token", Bar(1.0))
    assert (gone.holds, gone.verdict, gone.note) == (None, "", "peer not installed")


def test_measurements_alternate_after_a_warm_up_round():
    order: list[str] = []
    actions = {name: lambda name=name: order.append(name) or float(len(order)) for name in "ab"}
    found = measure.alternate(actions, 2)
    assert order == ["a", "b"] * 3
    assert found == {"a": [3.0, 5.0], "b": [4.0, 6.0]}


def test_run_continues_result_file_of_same_machine(tmp_path: Path):
    out, about = tmp_path / "perf.json", {"cpu": "x", "threads": 2}
    calls: list[str] = []

    def one(load: object) -> list[PerfRow]:
        calls.append("one")
        return [measure.row("one", [1.0], "ms"), measure.row("one/b", [1.0], "ms")]

    def broken(load: object) -> list[PerfRow]:
        calls.append("two")
        raise EngineError("The engine has ended.")

    table = {"one": one, "two": broken}
    run.run(None, table, out, dict(about), [], lambda line: None)  # type: ignore[arg-type]
    kept = measure.load(out, about)
    assert [(item.name, item.value) for item in kept] == [("one", 1.0), ("one/b", 1.0), ("two", None)]
    assert run.done(kept, table) == {"one"}
    assert measure.load(out, {**about, "threads": 1}) == []
    found = run.run(None, {"one": one}, out, dict(about), kept, lambda line: None)  # type: ignore[arg-type]
    assert sorted(item.name for item in found) == ["one", "one/b", "two"]
    assert "busy" in json.loads(out.read_text())["manifest"]
    out.write_text('{"rows": [{"no": 1}], "manifest": {"cpu": "x", "threads": 2}}')
    with pytest.raises(StorageError):
        measure.load(out, about)


def test_unknown_row_is_rejected():
    named = {
        "initialize", "first_completion", "decode", "keystroke_to_ghost", "prefix_reuse", "adapter_cost_per_token",
        "swap_pause", "save_to_generation", "update_vs_reread", "index_throughput", "engine_memory", "busy_vs_idle",
    }  # fmt: skip
    assert named <= set(run.ROWS)
    assert list(run.chosen(["decode"], run.ROWS)) == ["decode"]
    with pytest.raises(SettingError, match="Unknown row speed"):
        run.chosen(["speed"], run.ROWS)


def test_typing_places_come_from_small_insertions_in_commits(typed: Path):
    found = places([typed], 10)
    typed_texts = {"".join(key.text for key in place.keys) for place in found}
    assert typed_texts == {"import os", "if b:\n        b += 1"}
    inner = next(place for place in found if place.keys[0].text == "i" and "b = a" in place.prefix)
    assert inner.prefix.endswith("b = a\n    ")
    assert inner.suffix.startswith("\n    return b")
    assert places([typed], 10) == found


def test_automatic_indentation_is_one_key():
    found = keys("if b:\n        b += 1", random.Random(0))
    assert [key.text for key in found][5] == "\n        "
    assert all(0.02 < key.wait_s < 3 for key in found)
    assert found[6].wait_s > 2 * found[2].wait_s
