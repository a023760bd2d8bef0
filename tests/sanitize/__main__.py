"""`python -m tests.sanitize`: the kernel's tests, a fuzz and its thread pool under sanitizers, then planted faults."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from tests.sanitize import build

ROOT = build.HERE.parents[1]
FUZZ_S, POOL_S = 60.0, 10.0
PLANT_S = 25.0
"""Seconds of fuzzing within which a planted fault must be reported; mostly it is at once."""

TESTS = (
    "tests/model/runtime/test_kernel.py",
    "tests/model/runtime/test_kernel_threads.py",
    "tests/model/adapter/test_knn_lm.py",
)
OPTIONS = {
    "ASAN_OPTIONS": "detect_leaks=0",  # Python's own allocations at exit
    "UBSAN_OPTIONS": "print_stacktrace=1",
    "TSAN_OPTIONS": "halt_on_error=1",
    "OMP_NUM_THREADS": "1",
}


@dataclass(frozen=True)
class Outcome:
    """What a run under a sanitizer gave."""

    name: str
    held: bool
    seconds: float
    text: str


def main() -> int:
    """Run everything; exit code 1 if a sanitizer reports a fault, or does not report a planted one."""
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="c2l-sanitize-") as folder:
        try:
            outcomes = run(Path(folder), Tools(build.preloaded()))
        except build.Missing as missing:
            print(f"sanitize: {missing}. Install gcc with its sanitizer libraries (Debian: gcc).", file=sys.stderr)
            return 2
    for outcome in outcomes:
        print(f"sanitize: {outcome.name}: {'ok' if outcome.held else 'FAILED'} ({outcome.seconds:.0f} s)")
        if not outcome.held:
            print(outcome.text[-6000:])
    print(f"sanitize: {time.monotonic() - began:.0f} s")
    return 0 if all(outcome.held for outcome in outcomes) else 1


@dataclass(frozen=True)
class Tools:
    """The libraries to load before Python."""

    preload: str

    def fuzz(self, kernel: Path, seconds: float) -> tuple[int, str]:
        """The exit status and output of the fuzz with this kernel; a failure ends with the case that failed."""
        case = kernel.with_suffix(".case")
        code, text = self._python(kernel, ["-m", "tests.sanitize.fuzz", str(seconds)], seconds + 90, case)
        return code, text + (f"\nlast case: {case.read_text()}" if code and case.exists() else "")

    def tests(self, kernel: Path) -> tuple[int, str]:
        """The exit status and output of the kernel's tests with this kernel."""
        plugin = ["-p", "tests.sanitize.instrumented", "-p", "no:cacheprovider"]
        return self._python(kernel, ["-m", "pytest", "-q", *plugin, *TESTS], 500, kernel)  # 20 s on an idle machine

    def _python(self, kernel: Path, arguments: list[str], limit: float, case: Path) -> tuple[int, str]:
        names = {"C2L_SANITIZED_KERNEL": str(kernel), "C2L_SANITIZE_CASE": str(case)}
        return execute([sys.executable, *arguments], limit, LD_PRELOAD=self.preload, **names)


def run(folder: Path, tools: Tools) -> list[Outcome]:
    """Build, then run; two at a time if there are two cores."""
    with ThreadPoolExecutor(min(2, os.cpu_count() or 1)) as lanes:
        kernels = {name: lanes.submit(build.kernel, folder, name) for name in ("", *_plants(races=False))}
        pools = {name: lanes.submit(build.pool, folder, name) for name in ("", *_plants(races=True))}
        jobs: list[tuple[str, Callable[[], tuple[bool, str]]]] = [
            (f"fuzz of {FUZZ_S:.0f} s", lambda: _clean(*tools.fuzz(kernels[""].result(), FUZZ_S))),
            ("tests of the kernel", lambda: _clean(*tools.tests(kernels[""].result()))),
            (f"thread pool for {POOL_S:.0f} s", lambda: _clean(*drive(pools[""].result(), POOL_S))),
        ]
        jobs += [
            (f"planted fault {name}", partial(_fuzz_planted, tools, name, kernels[name])) for name in kernels if name
        ]
        jobs += [(f"planted fault {name}", partial(_drive_planted, name, pools[name])) for name in pools if name]
        return list(lanes.map(lambda job: _outcome(*job), jobs))


def _fuzz_planted(tools: Tools, name: str, kernel: Future[Path]) -> tuple[bool, str]:
    return _reported(name, *tools.fuzz(kernel.result(), PLANT_S))


def _drive_planted(name: str, pool: Future[Path]) -> tuple[bool, str]:
    return _reported(name, *drive(pool.result(), POOL_S))


def _plants(*, races: bool) -> list[str]:
    return [name for name, plant in build.PLANTS.items() if plant.races == races]


def _outcome(name: str, job: Callable[[], tuple[bool, str]]) -> Outcome:
    began = time.monotonic()
    held, text = job()
    return Outcome(name, held, time.monotonic() - began, text)


def _clean(code: int, text: str) -> tuple[bool, str]:
    return code == 0 and not any(plant.report.split(":")[0] in text for plant in build.PLANTS.values()), text


def _reported(name: str, code: int, text: str) -> tuple[bool, str]:
    return code != 0 and build.PLANTS[name].report in text, text


def drive(pool: Path, seconds: float) -> tuple[int, str]:
    """The exit status and output of the program of pool.c.

    ThreadSanitizer refuses some layouts of the address space; the program is then run without randomisation.
    """
    command = [str(pool), str(seconds)]
    code, text = execute(command, seconds + 60)
    if "unexpected memory mapping" in text and (fixed := shutil.which("setarch")):
        code, text = execute([fixed, "-R", *command], seconds + 60)
    return code, text


def execute(command: list[str], limit: float, **environment: str) -> tuple[int, str]:
    """The exit status of a command and its output; status −1 if it took longer than `limit` seconds."""
    try:
        done = subprocess.run(
            command, cwd=ROOT, env={**os.environ, **OPTIONS, **environment}, timeout=limit, check=False,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace",
        )  # fmt: skip
    except subprocess.TimeoutExpired as late:
        return -1, f"no end within {limit:.0f} s\n{late.output or ''}"
    return done.returncode, done.stdout


if __name__ == "__main__":
    sys.exit(main())
