"""Counts: kept, saved privately, never in the way."""

from __future__ import annotations

import datetime
import json
import os
import stat
from pathlib import Path

import pytest

from c2l_lsp.errors import StorageError
from c2l_lsp.server.reporting import statistics
from c2l_lsp.server.reporting.statistics import Statistics


def test_saved_and_read_again(tmp_path: Path) -> None:
    path = tmp_path / "state" / "statistics.json"
    one = Statistics(path)
    one.save()
    assert not path.exists()
    one.shown(adapted=True, chars=10)
    one.accepted(adapted=True, chars=10, partly=False, first=True)
    one.withheld("language")
    one.requested("cache")
    one.save()
    two = Statistics(path)
    assert two.totals == one.totals
    assert two.totals.with_adapter.accepted == 1
    assert two.totals.reasons == {"language": 1}
    if os.name != "nt":
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert [entry.name for entry in path.parent.iterdir()] == ["statistics.json"]


def test_weeks_are_counted_by_adapter_and_only_the_last_ones_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Day(datetime.date):
        passed = 0

        @classmethod
        def today(cls) -> datetime.date:
            return datetime.date(2026, 12, 28) + datetime.timedelta(weeks=cls.passed)

    monkeypatch.setattr(statistics.datetime, "date", Day)
    one = Statistics(tmp_path / "s.json")
    one.accepted(adapted=True, chars=10, partly=True, first=True)
    one.accepted(adapted=True, chars=3, partly=True, first=False)
    one.accepted(adapted=False, chars=5, partly=False, first=True)
    assert one.report()["weeks"] == {"2026-W53": {"withAdapter": 13, "withoutAdapter": 5}}
    for Day.passed in range(1, 12):
        one.accepted(adapted=False, chars=1, partly=False, first=True)
    assert list(one.totals.weeks) == [f"2027-W{week:02}" for week in range(4, 12)]


@pytest.mark.parametrize("content", ["", "{", "[1]", '{"requests": "many"}', "\x00"])
def test_a_broken_file_starts_anew(tmp_path: Path, content: str) -> None:
    (tmp_path / "s.json").write_text(content, encoding="utf-8")
    assert Statistics(tmp_path / "s.json").totals.requests == 0


def test_a_disk_that_refuses_is_an_error_with_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    statistics = Statistics(tmp_path / "file" / "s.json")
    statistics.shown(adapted=False, chars=1)
    with pytest.raises(StorageError, match="cannot be saved"):
        statistics.save()


def test_off_counts_nothing_but_knows_how_fast(tmp_path: Path) -> None:
    statistics = Statistics(tmp_path / "s.json")
    statistics.enabled = False
    statistics.shown(adapted=True, chars=1)
    statistics.withheld("off")
    statistics.requested("engine")
    for ms in range(1, 101):
        statistics.latency(ms)
    report = statistics.report()
    assert report["latencyMs"] == {"p50": 51, "p95": 96, "count": 100}
    assert (report["requests"], report["reasons"], report["withAdapter"]["shown"]) == (0, {}, 0)
    json.dumps(report)


def test_starting_anew(tmp_path: Path) -> None:
    statistics = Statistics(tmp_path / "s.json")
    statistics.requested("engine")
    statistics.reset()
    assert statistics.report()["requests"] == 0


def test_latencies_with_and_without_the_adapter_are_told_apart(tmp_path: Path) -> None:
    one = Statistics(tmp_path / "s.json")
    for ms in (10.0, 20.0, 30.0):
        one.latency(ms, adapted=True)
    one.latency(5.0, adapted=False)
    told = one.report()
    assert told["latencyMsWithAdapter"] == {"p50": 20.0, "p95": 30.0, "count": 3}
    assert told["latencyMsWithoutAdapter"] == {"p50": 5.0, "p95": 5.0, "count": 1}
    assert told["latencyMs"] == {"p50": 20.0, "p95": 30.0, "count": 4}
