"""Builds the kernel, and a driver of its thread pool, with sanitizers; also from sources with a planted fault."""

from __future__ import annotations

import shutil
import subprocess
import sysconfig
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
SOURCES = HERE.parents[1] / "c2l_lsp/model/runtime"
COMPILER = "gcc"
_COMMON = ("-O1", "-g1", "-fno-omit-frame-pointer", "-fno-math-errno", "-ffp-contract=fast", "-pthread")
_MEMORY = ("-shared", "-fPIC", "-fsanitize=address,undefined", "-fno-sanitize-recover=undefined")
_RACES = ("-fsanitize=thread", "-ffunction-sections", "-fdata-sections", "-Wl,--gc-sections")  # drops what needs Python


@dataclass(frozen=True)
class Plant:
    """A fault: `old` in `file` is replaced by `new`. The sanitizer's report must contain `report`."""

    file: str
    old: str
    new: str
    report: str
    races: bool = False


PLANTS = {
    "overrun": Plant(
        "_step.h",
        "for (int64_t j = 0; j < count; j++) y[j]",
        "for (int64_t j = 0; j <= count; j++) y[j]",
        "AddressSanitizer: heap-buffer-overflow",
    ),
    "overflow": Plant(
        "_knn.h", "*token = (int32_t)best;", "*token = (int32_t)best, *token += INT32_MAX;",
        "runtime error: signed integer overflow",
    ),
    "plain_read": Plant(
        "_pool.h", "while (!__atomic_load_n(&pool.busy, __ATOMIC_ACQUIRE) ||", "while (!pool.busy ||",
        "ThreadSanitizer: data race", races=True,
    ),
    "plain_write": Plant(
        "_pool.h", "__atomic_store_n(&pool.caller_cpu, current_cpu(), __ATOMIC_RELAXED);",
        "pool.caller_cpu = current_cpu();", "ThreadSanitizer: data race", races=True,
    ),
}  # fmt: skip


class Missing(Exception):
    """The compiler or the library of a sanitizer is not installed."""


def planted(name: str, folder: Path) -> Path:
    """A copy of the kernel's sources in `folder` with the planted fault; the sources themselves for ""."""
    if not name:
        return SOURCES
    plant = PLANTS[name]
    folder.mkdir(parents=True, exist_ok=True)
    for source in SOURCES.glob("_*.[ch]"):
        shutil.copy(source, folder)
    text = (folder / plant.file).read_text(encoding="utf-8")
    if text.count(plant.old) != 1:
        raise ValueError(f"{plant.file} does not contain the line of the planted fault {name} once: {plant.old}")
    (folder / plant.file).write_text(text.replace(plant.old, plant.new), encoding="utf-8")
    return folder


def kernel(folder: Path, plant: str = "") -> Path:
    """The extension with AddressSanitizer and UndefinedBehaviorSanitizer."""
    out = folder / f"_kernel{plant and '-' + plant}.abi3.so"
    _compile([*_MEMORY, str(planted(plant, folder / plant) / "_kernel.c"), "-o", str(out)])
    return out


def pool(folder: Path, plant: str = "") -> Path:
    """The program of pool.c with ThreadSanitizer."""
    out = folder / f"pool{plant and '-' + plant}"
    _compile([*_RACES, f"-I{planted(plant, folder / plant)}", str(HERE / "pool.c"), "-o", str(out), "-lm"])
    return out


def preloaded() -> str:
    """The sanitizers' libraries for LD_PRELOAD: Python itself is built without them. Raises Missing."""
    if shutil.which(COMPILER) is None:
        raise Missing(f"{COMPILER} is not installed")
    found = []
    for name in ("libasan.so", "libubsan.so"):
        asked = subprocess.run([COMPILER, f"-print-file-name={name}"], capture_output=True, text=True, check=True)
        path = Path(asked.stdout.strip())
        if not path.is_absolute():
            raise Missing(f"{COMPILER} has no {name}")
        found.append(str(path))
    return " ".join(found)


def _compile(arguments: list[str]) -> None:
    done = subprocess.run(
        [COMPILER, *_COMMON, f"-I{sysconfig.get_path('include')}", *arguments],
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    if done.returncode:
        raise RuntimeError(f"{COMPILER} failed:\n{done.stderr[-3000:]}")
