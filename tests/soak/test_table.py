"""The table of bars, the selection of bars, and continuation of an interrupted run."""

from __future__ import annotations

import dataclasses
import importlib
import json
import os
from pathlib import Path

import pytest
from typer.testing import CliRunner

from c2l_lsp.errors import RequestError
from tests.soak.__main__ import app
from tests.soak.bars import table
from tests.soak.harness import run as runner
from tests.soak.harness.bar import Bar, Finding, Task


def counted(task: Task) -> Finding:
    finding = Finding(tried=task.count, figures={"tries": (float(task.count), "")})
    if task.planted("broken"):
        for number in range(50):
            finding.fail(f"try {number}")
    return finding


BAR = Bar("made_up", "nothing", "nothing happens", 100, 3, "tries", "unused:run", ("broken",))


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    made: list[int] = []

    def measure(self: Bar, task: Task) -> Finding:
        made.append(task.count)
        return counted(task)

    monkeypatch.setattr(Bar, "measure", measure)
    return made


def test_every_bar_has_counts_function_and_planted_faults():
    assert len({bar.name for bar in table.BARS}) == len(table.BARS) >= 18
    for bar in table.BARS:
        module, _, name = bar.run.partition(":")
        assert callable(getattr(importlib.import_module(f"tests.soak.bars.{module}"), name)), bar.name
        assert bar.full >= bar.short >= 1
        assert bar.plants


def test_bars_are_selected_by_name():
    assert [bar.name for bar in table.select("secrets, documents")] == ["secrets", "documents"]
    assert table.select("") == list(table.BARS)
    with pytest.raises(RequestError, match=r"Unknown bar nothing\. Known bars: frames"):
        table.select("nothing")


def test_finished_rows_are_reused(calls: list[int], tmp_path: Path):
    out = tmp_path / "soak.json"
    rows = runner.soak([BAR], runner.Choice(short=True), out)
    assert [(row.name, row.value, row.holds) for row in rows] == [("made_up", 0.0, True), ("made_up/tries", 3.0, None)]
    assert runner.soak([BAR], runner.Choice(count=2), out) == rows  # the file already has a larger count
    assert calls == [3]
    runner.soak([BAR], runner.Choice(), out)
    runner.soak([BAR], runner.Choice(again=True), out)
    assert calls == [3, 100, 100]
    plain = json.loads(out.read_text())
    assert plain["manifest"]["bars"]["made_up"]["count"] == 100
    assert plain["rows"][0]["bar"] == "nothing happens"
    out.write_text("{}")
    with pytest.raises(RequestError, match="is not a result file"):
        runner.soak([BAR], runner.Choice(), out)


def test_rows_of_other_code_are_measured_again(calls: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    out = tmp_path / "soak.json"
    runner.soak([BAR], runner.Choice(short=True), out)
    monkeypatch.setattr(runner, "code_digest", lambda: "another")
    runner.soak([BAR], runner.Choice(short=True), out)
    runner.soak([BAR], runner.Choice(short=True), out)
    assert calls == [3, 3]
    old = json.loads(out.read_text())
    del old["manifest"]["bars"]["made_up"]["code"]  # a file of an older version
    out.write_text(json.dumps(old))
    runner.soak([BAR], runner.Choice(short=True), out)
    assert calls == [3, 3, 3]


def test_code_digest_depends_on_source_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "a.py").write_text("x = 1\n")
    monkeypatch.setattr(runner, "CODE", (tmp_path,))
    digest = runner.code_digest.__wrapped__
    before = digest()
    assert digest() == before
    (tmp_path / "a.py").write_text("x = 2\n")
    assert digest() != before


def test_row_states_stretched_limits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("os.getloadavg", lambda: (10.0 * (os.cpu_count() or 1), 0.0, 0.0))

    def waiting(task: Task) -> Finding:
        return Finding(tried=int(task.patience >= 10.0))

    monkeypatch.setattr("tests.soak.bars.process.day.run", waiting)
    bar = dataclasses.replace(BAR, run="process.day:run")
    out = tmp_path / "soak.json"
    (row,) = runner.soak([bar], runner.Choice(), out)
    assert row.holds
    assert row.bar is not None
    assert row.bar.startswith("nothing happens (limits in seconds × 1")
    assert json.loads(out.read_text())["manifest"]["bars"]["made_up"]["patience"] >= 10.0


def test_bar_with_planted_fault_fails(calls: list[int], tmp_path: Path):
    rows = runner.soak([BAR], runner.Choice(count=2, plant="broken"), tmp_path / "x.json")
    assert (rows[0].value, rows[0].holds) == (50.0, False)
    about = json.loads((tmp_path / "x.json").read_text())["manifest"]["bars"]["made_up"]
    assert (about["plant"], len(about["failures"])) == ("broken", 20)
    with pytest.raises(RequestError, match="no planted fault other"):
        runner.soak([BAR], runner.Choice(plant="other"), None)


def test_bar_that_raises_fails(monkeypatch: pytest.MonkeyPatch):
    def measure(self: Bar, task: Task) -> Finding:
        raise TimeoutError("no answer")

    monkeypatch.setattr(Bar, "measure", measure)
    (row,) = runner.soak([BAR], runner.Choice(), None)
    assert row.holds is False


def test_command_lists_and_runs_bars(tmp_path: Path):
    listed = CliRunner().invoke(app, ["--list"])
    assert listed.exit_code == 0
    assert all(bar.name in listed.output for bar in table.BARS)
    out = str(tmp_path / "soak.json")
    assert CliRunner().invoke(app, ["--bars", "documents", "--count", "5", "--json", out]).exit_code == 0
    broken = ["--bars", "documents", "--count", "40", "--plant", "codepoints"]
    assert CliRunner().invoke(app, broken).exit_code == 1
