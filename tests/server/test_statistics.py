"""Counts: kept, saved privately, never in the way."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path

import pytest

from c2l_lsp.errors import StorageError
from c2l_lsp.server.statistics import Statistics


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
