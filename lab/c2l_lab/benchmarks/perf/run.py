"""The table of rows, and a run through it that saves each row as soon as it is measured."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from c2l_lab.benchmarks.perf import measure
from c2l_lab.benchmarks.perf.measure import PerfRow
from c2l_lab.benchmarks.perf.rows import adapters, decoding, gpu, serving, token_index, updates
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
    "first_generation": token_index.first_generation,
    "token_look_up": token_index.token_look_up,
    "token_follow_up": token_index.token_follow_up,
    "index_throughput": adapters.index_throughput,
    "engine_memory": updates.engine_memory,
    "busy_vs_idle": updates.busy_vs_idle,
    "int8_loss": decoding.int8_loss,
}
"""Name → measurement. A measurement gives one or more rows, whose names start with its name."""

GPU_ROWS: dict[str, Measurement] = {"gpu_decode": gpu.decode, "gpu_swap": gpu.swap, "gpu_embedding": gpu.embedding}
"""GPU rows: the shape of Qwen2.5-Coder-1.5B with random weights, so nothing is downloaded."""


def chosen(names: Sequence[str], rows: dict[str, Measurement]) -> dict[str, Measurement]:
    """The measurements with these names; all for "". SettingError for an unknown name."""
    for name in names:
        if name not in rows:
            raise SettingError(f"Unknown row {name}. Known rows: {', '.join(rows)}.")
    return {name: rows[name] for name in (names or rows)}


def run(
    load: Workload,
    wanted: dict[str, Measurement],
    out: Path | None,
    manifest: dict[str, Any],
    earlier: list[PerfRow],
    say: Callable[[str], None],
) -> list[PerfRow]:
    """Run measurements and write `out` after each. Rows in `earlier` stay unless they are measured again."""
    rows = list(earlier)
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


def done(earlier: Sequence[PerfRow], rows: dict[str, Measurement]) -> set[str]:
    """The measurements of an earlier run that need not run again; one with a missing value must."""
    made = {item.name.partition("/")[0] for item in earlier}
    missing = {item.name.partition("/")[0] for item in earlier if item.value is None}
    return {name for name in rows if name in made - missing}
