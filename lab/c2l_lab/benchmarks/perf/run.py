"""Which rows there are, and a run through them: one after the other, each saved as soon as it is measured."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from c2l_lab.benchmarks.perf import measure
from c2l_lab.benchmarks.perf.measure import PerfRow
from c2l_lab.benchmarks.perf.rows import adapters, decoding, gpu, serving, updates
from c2l_lab.benchmarks.perf.workload import Workload, load_now
from c2l_lsp.errors import C2LError, SettingError

Measurement = Callable[[Workload], list[PerfRow]]

ROWS: dict[str, Measurement] = {
    "initialize": serving.initialize,
    "first_completion": serving.first_completion,
    "decode": decoding.decode,
    "keystroke_to_ghost": serving.ghost_text,
    "prefix_reuse": decoding.prefix_reuse,
    "adapter_cost_per_token": adapters.cost_per_token,
    "swap_pause": adapters.swap_pause,
    "save_to_generation": updates.save_to_generation,
    "update_vs_reread": updates.update_vs_reread,
    "index_throughput": adapters.index_throughput,
    "engine_memory": updates.engine_memory,
    "busy_vs_idle": updates.busy_vs_idle,
    "int8_loss": decoding.int8_loss,
}
"""Name → measurement. A measurement may give several rows, all named after it."""

GPU_ROWS: dict[str, Measurement] = {"gpu_decode": gpu.decode, "gpu_swap": gpu.swap, "gpu_embedding": gpu.embedding}
"""Rows of a GPU: Qwen2.5-Coder-1.5B's shape with random weights; nothing is downloaded, no editor is played."""


def chosen(names: Sequence[str], rows: dict[str, Measurement]) -> dict[str, Measurement]:
    """The measurements to make; all if none is named. SettingError names one that does not exist."""
    for name in names:
        if name not in rows:
            raise SettingError(f"There is no row {name}; there are {', '.join(rows)}.")
    return {name: rows[name] for name in (names or rows)}


def run(
    load: Workload,
    wanted: dict[str, Measurement],
    out: Path | None,
    manifest: dict[str, Any],
    kept: list[PerfRow],
    say: Callable[[str], None],
) -> list[PerfRow]:
    """Measure what is wanted; rows in `kept` stay unless measured again. `out` is written after every measurement."""
    rows = list(kept)
    loads = manifest.setdefault("busy", {})
    for name, action in wanted.items():
        say(f"{name} …")
        try:
            found = action(load)
        except C2LError as error:
            say(f"{name}: {error}")
            found = [measure.absent(name, "", None, str(error))]
        rows = [item for item in rows if item.name.partition("/")[0] != name] + found
        loads[name] = load_now()
        if out is not None:
            measure.save(out, manifest, rows)
    return rows


def done(kept: Sequence[PerfRow], rows: dict[str, Measurement]) -> set[str]:
    """Measurements an earlier run has made; one without a figure is tried again."""
    made = {item.name.partition("/")[0] for item in kept}
    missing = {item.name.partition("/")[0] for item in kept if item.value is None}
    return {name for name in rows if name in made - missing}
