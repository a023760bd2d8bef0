"""Rows about the server as an editor sees it: start, first completion, and latency of ghost text."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from c2l_lab.benchmarks.perf import measure, peers
from c2l_lab.benchmarks.perf.measure import Bar, PerfRow
from c2l_lab.benchmarks.perf.workload import Workload
from c2l_lsp.errors import EngineError

if TYPE_CHECKING:  # pygls takes 0.2 s to import, and most rows do not need it
    from c2l_lab.clients.lsp import LanguageClient

_GHOST = Bar(1.0)
_WITHIN_S = 120.0


def initialize(load: Workload) -> list[PerfRow]:
    """From the start of the server process to the reply to `initialize`, with its files in the page cache."""
    root = load.folder("few", 12)

    times = [_initialize(root, load) for _ in range(load.repeats + 1)][1:]
    return [measure.row("initialize", times, "s", bar=Bar(1.0))]


def first_completion(load: Workload) -> list[PerfRow]:
    """From the start of the server process to the first completion, which must come before indexing ends."""
    root = load.folder("project", 12 if load.small else 300)
    repeats = 1 if load.small else min(load.repeats, 15)
    found = [_first(root, load) for _ in range(repeats)]
    times, early = [spent for spent, _ in found], sum(before for _, before in found)
    note = f"before indexing ended: {early} of {len(found)}"
    made = measure.row("first_completion", times, "s", bar=Bar(6.0), note=note)
    late = early < len(found)
    return [measure.PerfRow(**{**vars(made), "holds": False}) if late else made]


def _initialize(root: Path, load: Workload) -> float:
    began = time.perf_counter()
    with _client(root, load) as client:
        client.initialize([root])
        spent = time.perf_counter() - began
        client.shutdown()
    return spent


def _first(root: Path, load: Workload) -> tuple[float, bool]:
    """Seconds until the first completion, and whether it came before the folder was indexed."""
    path = next(root.rglob("*.py"))
    text = path.read_text(encoding="utf-8")
    lines = text.split("\n")
    at = len(lines) // 2
    began = time.perf_counter()
    with _client(root, load) as client:
        client.initialize([root])
        client.open(path.as_uri(), text)
        while not client.complete(path.as_uri(), at, len(lines[at])):
            at = (at + 1) % len(lines)
            if time.perf_counter() - began > _WITHIN_S:
                raise EngineError(f"No completion came within {_WITHIN_S:.0f} s.")
        spent, indexed = time.perf_counter() - began, bool(client.adapters)
        client.shutdown()
    return spent, not indexed


def _client(root: Path, load: Workload) -> LanguageClient:
    from c2l_lab.clients.lsp import LanguageClient

    state = Path(tempfile.mkdtemp(dir=load.work))
    settings = state / "config.toml"
    model = load.settings.model
    settings.write_text(
        f"[model]\nid = {model.id!r}\npath = {model.path!r}\ndevice = {model.device!r}\n", encoding="utf-8"
    )
    environment = {
        "C2L_STATE_DIR": str(state / "state"), "C2L_CONFIG": str(settings), "OMP_NUM_THREADS": str(load.threads),
    }  # fmt: skip
    return LanguageClient(environment, log=state / "server.log", cwd=root.parent)


def ghost_text(load: Workload) -> list[PerfRow]:
    """The latency of ghost text in replayed typing, with our engine and with llama.cpp under the same rules."""
    from c2l_lab.benchmarks.perf import replay
    from c2l_lab.benchmarks.perf.typing import places

    found = places(load.roots, 2 if load.small else load.places)
    kinds = ("BF16", "Q8_0")
    names = [f"keystroke_to_ghost/{name}" for name in ("ours", *(f"llama.cpp/{kind}" for kind in kinds))]
    if not found:
        why = "no commit of these repositories inserted code by hand"
        return [measure.absent(f"{name}/{which}", "ms", _GHOST, why) for name in names for which in ("p50", "p95")]
    ours = replay.replay(replay.OurSide(load.model), found, load.settings, load.work, load.speed)
    keys = sum(len(place.keys) for place in found)
    rows = _latency_rows(names[0], ours, None, keys)
    for name, kind in zip(names[1:], kinds, strict=True):
        if not peers.has_llama():
            rows += [measure.absent(f"{name}/{which}", "ms", _GHOST) for which in ("p50", "p95")]
            continue
        llama = peers.Llama(load.model, kind, load.work, load.threads)
        side = replay.LlamaSide(load.model, llama)
        rows += _latency_rows(name, replay.replay(side, found, load.settings, load.work, load.speed), ours, keys)
    return rows


def _latency_rows(name: str, latencies, ours, keys: int) -> list[PerfRow]:  # type: ignore[no-untyped-def] # noqa: ANN001 - replay.Latencies
    waits = [spent * 1e3 for spent in latencies.waits]
    cancelled = len(latencies.superseded)
    note = f"{keys} keys, {latencies.saved} served without a request, {cancelled} superseded by the next key"
    rows = []
    for which, share in (("p50", 0.5), ("p95", 0.95)):
        value = measure.percentile(waits, share)
        ratio = measure.percentile(ours.waits, share) * 1e3 / value if ours is not None else None
        low, high = measure.quartiles(waits)
        holds = _GHOST.holds(ratio) if ratio is not None else None
        bar = str(_GHOST) if ours is not None else ""
        rows.append(PerfRow(f"{name}/{which}", value, "ms", ratio, bar, holds, len(waits), low, high, note))
    return rows
