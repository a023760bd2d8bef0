"""`c2l-lab bench perf`: selection of rows, continuation of a result file, exit code for FAIL."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from c2l_lab.benchmarks.cli import bench_app
from c2l_lab.benchmarks.perf import measure, run
from c2l_lab.benchmarks.perf.measure import Bar, PerfRow
from typer.testing import CliRunner


def test_rows_are_measured_once_and_compared_with_bars(tmp_path: Path, typed: Path, monkeypatch: pytest.MonkeyPatch):
    calls: list[str] = []

    def row(name: str, value: float):
        def action(load: object) -> list[PerfRow]:
            calls.append(name)
            return [measure.row(name, [value], "ms", bar=Bar(1.0))]

        return action

    monkeypatch.setattr(run, "ROWS", {"fast": row("fast", 0.5), "slow": row("slow", 2.0)})
    monkeypatch.chdir(typed)
    out = tmp_path / "perf.json"
    common = ["perf", "--threads", "1", "--work", str(tmp_path / "work"), "--json", str(out)]
    first = CliRunner().invoke(bench_app, [*common, "--rows", "fast"])
    assert first.exit_code == 0, first.output
    both = CliRunner().invoke(bench_app, common)
    assert both.exit_code == 1, "a missed bar is an exit code"
    assert calls == ["fast", "slow"], "what was measured is kept"
    assert "FAIL" in both.output and "PASS" in both.output
    kept = json.loads(out.read_text("utf-8"))
    assert [item["name"] for item in kept["rows"]] == ["fast", "slow"]
    assert kept["manifest"]["threads"] == 1
    CliRunner().invoke(bench_app, [*common, "--fresh"])
    assert calls == ["fast", "slow"] * 2
