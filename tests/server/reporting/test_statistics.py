"""Statistics are counted, saved privately, and never cause a failure."""

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


def test_counts_are_saved_and_loaded(tmp_path: Path) -> None:
    path = tmp_path / "state" / "statistics.json"
    one = Statistics(path)
    one.save()
    assert not path.exists()
    one.record_shown(adapted=True, chars=10)
    one.record_accepted(adapted=True, chars=10, partly=False, first=True)
    one.record_no_completion("language")
    one.record_completion("cache")
    one.save()
    two = Statistics(path)
    assert two.totals == one.totals
    assert two.totals.with_adapter.accepted == 1
    assert two.totals.reasons == {"language": 1}
    if os.name != "nt":
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert [entry.name for entry in path.parent.iterdir()] == ["statistics.json"]


def test_only_the_last_eight_weeks_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Day(datetime.date):
        passed = 0

        @classmethod
        def today(cls) -> datetime.date:
            return datetime.date(2026, 12, 28) + datetime.timedelta(weeks=cls.passed)

    monkeypatch.setattr(statistics.datetime, "date", Day)
    one = Statistics(tmp_path / "s.json")
    one.record_accepted(adapted=True, chars=10, partly=True, first=True)
    one.record_accepted(adapted=True, chars=3, partly=True, first=False)
    one.record_accepted(adapted=False, chars=5, partly=False, first=True)
    assert one.report()["weeks"] == {"2026-W53": {"withAdapter": 13, "withoutAdapter": 5}}
    for Day.passed in range(1, 12):
        one.record_accepted(adapted=False, chars=1, partly=False, first=True)
    assert list(one.totals.weeks) == [f"2027-W{week:02}" for week in range(4, 12)]


@pytest.mark.parametrize("content", ["", "{", "[1]", '{"requests": "many"}', "\x00"])
def test_corrupt_file_resets_the_counts(tmp_path: Path, content: str) -> None:
    (tmp_path / "s.json").write_text(content, encoding="utf-8")
    assert Statistics(tmp_path / "s.json").totals.requests == 0


def test_unwritable_directory_raises_storage_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    statistics = Statistics(tmp_path / "file" / "s.json")
    statistics.record_shown(adapted=False, chars=1)
    with pytest.raises(StorageError, match="cannot be saved"):
        statistics.save()


def test_disabled_statistics_still_record_latencies(tmp_path: Path) -> None:
    statistics = Statistics(tmp_path / "s.json")
    statistics.enabled = False
    statistics.record_shown(adapted=True, chars=1)
    statistics.record_no_completion("off")
    statistics.record_completion("engine")
    for ms in range(1, 101):
        statistics.record_latency(ms)
    report = statistics.report()
    assert report["latencyMs"] == {"p50": 51, "p95": 96, "count": 100}
    assert (report["requests"], report["reasons"], report["withAdapter"]["shown"]) == (0, {}, 0)
    json.dumps(report)


def test_reset_sets_the_counts_to_zero(tmp_path: Path) -> None:
    statistics = Statistics(tmp_path / "s.json")
    statistics.record_completion("engine")
    statistics.reset()
    assert statistics.report()["requests"] == 0


def test_latencies_are_reported_with_and_without_adapter(tmp_path: Path) -> None:
    one = Statistics(tmp_path / "s.json")
    for ms in (10.0, 20.0, 30.0):
        one.record_latency(ms, adapted=True)
    one.record_latency(5.0, adapted=False)
    report = one.report()
    assert report["latencyMsWithAdapter"] == {"p50": 20.0, "p95": 30.0, "count": 3}
    assert report["latencyMsWithoutAdapter"] == {"p50": 5.0, "p95": 5.0, "count": 1}
    assert report["latencyMs"] == {"p50": 20.0, "p95": 30.0, "count": 4}
