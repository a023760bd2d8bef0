"""The table of bars, the selection of bars, and continuation of an interrupted run."""

from __future__ import annotations

import dataclasses
import importlib
import importlib.util
import json
import os
import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from c2l_lsp.errors import RequestError
from tests.soak.__main__ import app
from tests.soak.bars import table
from tests.soak.harness import digest, report
from tests.soak.harness import run as runner
from tests.soak.harness.bar import Bar, Finding, Task, starvation


def counted(task: Task) -> Finding:
    finding = Finding(tried=task.count, figures={"tries": (float(task.count), "")})
    if task.planted("broken"):
        for number in range(50):
            finding.fail(f"try {number}")
    return finding


BAR = Bar("made_up", "nothing", "nothing happens", 100, 3, "tries", "process.unused:run", ("broken",))


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
    monkeypatch.setattr(runner, "code_digest", lambda bar: "another")
    runner.soak([BAR], runner.Choice(short=True), out)
    runner.soak([BAR], runner.Choice(short=True), out)
    assert calls == [3, 3]
    old = json.loads(out.read_text())
    del old["manifest"]["bars"]["made_up"]["code"]  # a file of an older version
    out.write_text(json.dumps(old))
    runner.soak([BAR], runner.Choice(short=True), out)
    assert calls == [3, 3, 3]


def test_row_of_code_that_changed_during_the_run_is_of_no_code(
    calls: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    digests = iter(["before", "after"])
    monkeypatch.setattr(runner, "code_digest", lambda bar: next(digests))
    runner.soak([BAR], runner.Choice(again=True), tmp_path / "soak.json")
    about = json.loads((tmp_path / "soak.json").read_text())["manifest"]["bars"]["made_up"]
    assert about["code"] == "changed during the run"


@pytest.mark.parametrize("changed", ["a.py", "deep/_kernel.c", "deep/_pool.h", "assets/model.safetensors", "new.toml"])
def test_digest_covers_every_source_and_asset(changed: str, tmp_path: Path):
    """Regression: C sources and models were not covered."""
    for name in ("a.py", "deep/_kernel.c", "deep/_pool.h", "assets/model.safetensors"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("1")
    before = digest.digest(tmp_path, digest.files(tmp_path))
    (tmp_path / "a.pyc").write_text("compiled")
    assert digest.digest(tmp_path, digest.files(tmp_path)) == before
    (tmp_path / changed).write_text("2")
    assert digest.digest(tmp_path, digest.files(tmp_path)) != before


def test_digest_of_a_bar_covers_all_that_it_imports():
    """Otherwise a row could be shown beside code that it was not measured with."""
    shared = digest.files(*(digest.ROOT / folder for folder in digest.SHARED))
    assert {path.suffix for path in shared} >= {".py", ".c", ".h", ".safetensors", ".json"}
    for bar in table.BARS:
        package = bar.run.partition(".")[0]
        covered = tuple(folder.replace("/", ".") for folder in (*digest.SHARED, f"{digest.BARS}/{package}"))
        for path in (digest.ROOT / digest.BARS / package).glob("*.py"):
            names = set(re.findall(r"^\s*from (tests\.[\w.]+) import", path.read_text(encoding="utf-8"), re.M))
            assert [name for name in names if not name.startswith(covered)] == [], path


def test_digest_depends_on_the_bar():
    stricter = dataclasses.replace(BAR, passes="something else happens")
    assert digest.code_digest(BAR) != digest.code_digest(stricter)
    frames, storm, documents = (table.select(name)[0] for name in ("frames", "edit_storm", "save_styles"))
    assert len({digest.code_digest(bar) for bar in (frames, storm, documents)}) == 3


@pytest.mark.parametrize("load", [1.5, 10.0])
def test_limits_are_stretched_to_twice_at_most(load: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Regression: on a machine with 30 times the load of an idle one, 100 ms became three seconds, and the bar held."""
    monkeypatch.setattr("os.getloadavg", lambda: (load * (os.cpu_count() or 1), 0.0, 0.0))
    monkeypatch.setattr("tests.soak.harness.bar._wall_per_cpu_time", lambda: 1.0)

    def waiting(task: Task) -> Finding:
        return Finding(tried=1, figures={"patience": (task.patience, "")})

    monkeypatch.setattr("tests.soak.bars.process.day.run", waiting)
    bar = dataclasses.replace(BAR, run="process.day:run")
    out = tmp_path / "soak.json"
    row, figure = runner.soak([bar], runner.Choice(), out)
    assert figure.value == min(load, 2.0)
    assert row.bar is not None
    about = json.loads(out.read_text())["manifest"]["bars"]["made_up"]
    assert about["busiest"] == load
    if load > 2.0:
        assert row.holds is None and row.bar.startswith("not measured: other work slowed the machine down 10.0 times")
        monkeypatch.setattr("os.getloadavg", lambda: (0.1, 0.0, 0.0))
        assert runner.soak([bar], runner.Choice(), out)[0].holds, "it is measured again"
    else:
        assert row.holds and row.bar == "nothing happens (limits in seconds × 1.5: busy machine)"


@pytest.mark.parametrize(("busiest", "late", "wrong", "verdict"), [
    (1.0, 0, 0, True), (1.0, 1, 0, False), (1.0, 0, 1, False), (5.0, 0, 0, None), (5.0, 1, 0, None), (5.0, 1, 1, False),
])  # fmt: skip
def test_a_busy_machine_excuses_what_is_late_and_nothing_else(
    busiest: float, late: int, wrong: int, verdict: bool | None
):
    finding = Finding(tried=1, busiest=busiest)
    for _ in range(late):
        finding.fail("after 3 s", late=True)
    for _ in range(wrong):
        finding.fail("a wrong text")
    assert finding.verdict is verdict
    assert finding.holds is (not late and not wrong)


def test_being_preempted_once_is_no_load(monkeypatch: pytest.MonkeyPatch):
    ratios = iter([9.0, 1.2])
    monkeypatch.setattr("tests.soak.harness.bar._wall_per_cpu_time", lambda: next(ratios))
    monkeypatch.setattr("os.getloadavg", lambda: (0.1, 0.0, 0.0))
    assert starvation() == 1.2


def results(path: Path, bar: Bar, code: str, holds: bool | None, count: int) -> Path:
    row = {"name": bar.name, "method": "soak", "value": 0.0, "bar": bar.passes, "holds": holds}
    about = {"count": count, "plant": "", "code": code, "failures": ["try 7"], "busiest": 1.0, "started": "2026-01-02T"}
    path.write_text(json.dumps({"manifest": {"bars": {bar.name: about}}, "rows": [row]}))
    return path


def test_a_row_of_older_code_is_never_shown_as_todays(tmp_path: Path):
    today, path = digest.code_digest(BAR), tmp_path / "soak.json"

    def shown(code: str, holds: bool | None = True, count: int = 100) -> str:
        (line,) = report.lines([BAR], results(path, BAR, code, holds, count))
        assert line.state in report.markdown([BAR], path)
        return line.state

    assert shown(today) == "holds"
    assert shown(today, count=3) == "holds in a short run of 3"
    assert shown(today, False) == "does not hold: try 7"
    assert shown(today, None) == "not measured: the machine was too busy"
    for holds in (True, False, None):
        assert shown("older", holds) == "older code: make soak measures it again"
    assert report.lines([BAR], tmp_path / "none.json")[0].state == "not run"


def test_committed_results_name_the_code_of_every_row():
    plain = json.loads(report.RESULTS.read_text(encoding="utf-8"))
    bars = {row["name"].partition("/")[0] for row in plain["rows"]}
    assert bars == set(plain["manifest"]["bars"])
    assert all(about["code"] and not about["plant"] for about in plain["manifest"]["bars"].values())


def test_the_documentation_shows_the_state_of_every_bar():
    page = (digest.ROOT / "docs/benchmarks.md").read_text(encoding="utf-8")
    hook = importlib.util.spec_from_file_location("soak_table", digest.ROOT / "docs/soak_table.py")
    assert hook is not None and hook.loader is not None
    module = importlib.util.module_from_spec(hook)
    hook.loader.exec_module(module)
    shown = module.on_page_markdown(page)
    for line in report.lines(table.BARS, report.RESULTS):
        assert f"| `{line.bar.name}` |" in shown and line.state in shown
        assert f"| `{line.bar.name}` |" not in page, (
            "a state in the text would outlive the code that it was measured on"
        )
    assert "soak_table.py" in (digest.ROOT / "mkdocs.yml").read_text(encoding="utf-8")


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


def test_command_shows_the_state_of_every_bar(tmp_path: Path):
    bar = table.BARS[0]
    path = results(tmp_path / "soak.json", bar, "older", True, bar.full)
    shown = CliRunner().invoke(app, ["--show", "--json", str(path)])
    assert shown.exit_code == 0
    assert f"{bar.name}: older code" in shown.output and f"{table.BARS[1].name}: not run" in shown.output
