"""What `make sanitize` runs: its cases with the installed kernel, its planted faults, and its verdicts."""

from __future__ import annotations

import random
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from c2l_lsp.model.runtime import kernel
from tests.sanitize import __main__ as runner
from tests.sanitize import build, frames, shapes, states

CASES: list[Callable[[random.Random], None]] = [
    shapes.product,
    shapes.layers,
    shapes.rows,
    states.memory,
    states.saved,
    frames.frame,
    frames.message,
]


def has_sanitizers() -> bool:
    if shutil.which(build.COMPILER) is None:
        return False
    asked = [build.COMPILER, "-print-file-name=libtsan.so"]
    return Path(subprocess.run(asked, capture_output=True, text=True, check=True).stdout.strip()).is_absolute()


def _repeat(case: Callable[[random.Random], None], times: int) -> None:
    for seed in range(times):
        case(random.Random(str(seed)))


@pytest.mark.skipif(not kernel.is_available(), reason="the kernel was not built: no C compiler at installation")
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__)
def test_cases_hold_with_the_installed_kernel(case: Callable[[random.Random], None]) -> None:
    try:
        _repeat(case, 12)
    finally:
        kernel.extension().select_lanes(8) or kernel.extension().select_lanes(4)


def test_a_row_with_other_bits_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    real = kernel.multiply
    monkeypatch.setattr(kernel, "multiply", lambda x, matrix, threads=1: real(x, matrix, threads) + len(x))
    with pytest.raises(AssertionError, match="other bits"):
        _repeat(shapes.product, 12)


@pytest.mark.parametrize("name", build.PLANTS)
def test_planted_fault_changes_one_line_of_todays_sources(name: str, tmp_path: Path) -> None:
    folder = build.planted(name, tmp_path)
    plant = build.PLANTS[name]
    assert plant.new in (folder / plant.file).read_text(encoding="utf-8")
    assert {path.name for path in folder.iterdir()} == {path.name for path in build.SOURCES.glob("_*.[ch]")}


def test_a_report_fails_a_run_and_silence_fails_a_planted_fault() -> None:
    race = "WARNING: ThreadSanitizer: data race (pid=1)"
    assert runner._clean(0, "102 passed")[0]
    assert not runner._clean(0, f"102 passed\n{race}")[0]
    assert not runner._clean(1, "")[0]
    assert runner._reported("plain_read", 66, race)[0]
    assert not runner._reported("plain_read", 0, "2000 products, all right")[0]
    assert not runner._reported("plain_read", 1, "Segmentation fault")[0]


@pytest.mark.skipif(not has_sanitizers(), reason="gcc with ThreadSanitizer is not installed")
def test_thread_pool_has_no_data_race(tmp_path: Path) -> None:
    """Regression: a worker read `pool.busy` plainly, while a caller that holds another mutex wrote it."""
    code, text = runner.drive(build.pool(tmp_path), 2.0)
    assert runner._clean(code, text)[0], text
    assert runner._reported("plain_read", *runner.drive(build.pool(tmp_path, "plain_read"), 10.0))[0]
