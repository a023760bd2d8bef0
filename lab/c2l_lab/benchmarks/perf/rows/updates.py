"""Rows about updates: save to adapter, update against a new index, memory, and completions while indexing."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from c2l_lab.benchmarks.perf import measure
from c2l_lab.benchmarks.perf.measure import Bar, PerfRow
from c2l_lab.benchmarks.perf.workload import Workload
from c2l_lab.clients.engine import EngineProcess
from c2l_lsp.config import Settings, merge
from c2l_lsp.engine import wire
from c2l_lsp.errors import EngineError

_SETTLE_S = 1800.0
_UPDATE_S = 120.0
_BUSY_S = 20.0  # limit for completions while a folder is indexed


def save_to_generation(load: Workload) -> list[PerfRow]:
    """From saving a file to the new adapter, with the default quiet time; the 95th percentile over the saves."""
    root = load.folder("project", 12 if load.small else 300)
    target = sorted(root.rglob("*.py"))[0]
    before = target.read_text(encoding="utf-8")
    times = []
    try:
        with EngineProcess(environment(load)) as engine:
            engine.hello(load.settings)
            _index(engine, root, load.settings)
            for number in range(2 if load.small else load.repeats):
                since, began = len(engine.events), time.monotonic()
                target.write_text(f"{before}\n\ndef saved_{number}(x):\n    return x + {number}\n", encoding="utf-8")
                times.append(_changed_at(engine, since) - began)
    finally:
        target.write_text(before, encoding="utf-8")
    p95, bar = measure.percentile(times, 0.95), Bar(1.0)
    low, high = measure.quartiles(times)
    note = (
        f"p95; median {statistics.median(times):.3g} s, with {load.settings.adapter.update_delay_ms} ms of quiet time"
    )
    return [PerfRow("save_to_generation", p95, "s", None, str(bar), bar.holds(p95), len(times), low, high, note)]


def update_vs_reread(load: Workload) -> list[PerfRow]:
    """The time to update one file against the time to index the whole folder, both as the engine reports them."""
    count = 12 if load.small else 500
    root = load.folder("whole", count)
    size = sum(path.stat().st_size for path in root.rglob("*.py"))
    settings, _ = merge(load.settings, {"adapter.maxIndexKb": size // 1024 + 64}, source="bench perf", machine=True)
    target = sorted(root.rglob("*.py"))[0]
    before = target.read_text(encoding="utf-8")
    updates, whole = [], 0.0
    try:
        with EngineProcess(environment(load)) as engine:
            engine.hello(load.settings)
            whole = _index(engine, root, settings)
            for number in range(2 if load.small else load.repeats):
                since = len(engine.events)
                target.write_text(f"{before}\n\nsaved_{number} = {number}\n", encoding="utf-8")
                _changed_at(engine, since)
                updates.append(_work(engine, since))
    finally:
        target.write_text(before, encoding="utf-8")
    ratio = statistics.median(updates) / whole
    note = f"{count} files, {size // 1024} kB; whole index {whole / 1e3:.3g} s"
    return [measure.row("update_vs_reread", updates, "ms", ratio=ratio, bar=Bar(1 / 50), note=note)]


def engine_memory(load: Workload) -> list[PerfRow]:
    """Peak resident memory of the engine process with a large repository, minus the weights of the model."""
    count = 24 if load.small else 10_000
    root = load.folder("large", count)
    with EngineProcess(environment(load)) as engine:
        model = engine.hello(load.settings)
        idle = engine.memory
        peak = _Peak(engine)
        _index(engine, root, load.settings, peak.look)
        engine.call("complete", _request(root, load.texts(1)[0]), wire.Completion)
        peak.look()
        weights = _weights(model)
    value = (peak.bytes - weights) / 2**20
    note = f"{count} files; {(idle - weights) / 2**20:.0f} MB of it before any folder (imports, int8 weights)"
    return [measure.row("engine_memory", [value], "MB", bar=Bar(500.0), note=note)]


def busy_vs_idle(load: Workload) -> list[PerfRow]:
    """The 95th percentile of completion time while a folder is indexed, against that of an idle engine."""
    root = load.folder("project", 12 if load.small else 300)
    texts = load.texts(8)
    idle: list[float] = []
    busy: list[float] = []
    with EngineProcess(environment(load)) as engine:
        engine.hello(load.settings)
        _index(engine, root, load.settings)
        _quiet(engine, root)
        rounds = 2 if load.small else max(3, load.repeats)
        for number in range(rounds + 1):
            times = [_timed(engine, root, text, number) for text in texts]
            idle += times if number else []
        deadline = time.monotonic() + _BUSY_S * (0.2 if load.small else 3)
        number = 1000
        while len(busy) < rounds * len(texts) and time.monotonic() < deadline:
            since = len(engine.events)
            engine.call("reset", wire.Folder(folder=str(root)), wire.Nothing)
            live = False
            while not live:
                busy.append(_timed(engine, root, texts[number % len(texts)], number))
                number += 1
                live = bool(engine.named("adapter_changed", since))
    low, high = measure.quartiles(busy)
    value, bar = measure.percentile(busy, 0.95), Bar(1.5)
    ratio = value / measure.percentile(idle, 0.95)
    note = f"p95; idle {measure.percentile(idle, 0.95):.3g} ms"
    name = "busy_vs_idle"
    return [PerfRow(name, value, "ms", ratio, str(bar), bar.holds(ratio), len(busy), low, high, note)]


# --- the engine as a process -----------------------------------------------------------------------------------------


def environment(load: Workload) -> dict[str, str]:
    """Environment variables of an engine with a state directory of its own."""
    state = tempfile.mkdtemp(dir=load.work)
    config = str(Path(state) / "none.toml")
    return {"C2L_STATE_DIR": state, "C2L_CONFIG": config, "OMP_NUM_THREADS": str(load.threads)}


def _changed_at(engine: EngineProcess, since: int) -> float:
    """When the first adapter after event number `since` went live. TimeoutError if none does."""
    engine.until(lambda: engine.named("adapter_changed", since), _UPDATE_S, "new adapter")
    return engine.named("adapter_changed", since)[0][0]


def _index(engine: EngineProcess, root: Path, settings: Settings, look: Callable[[], None] = lambda: None) -> float:
    """Open a folder and wait until its adapter contains every file; the ms of work that the engine reports."""
    since = len(engine.events)
    engine.call("open_folder", wire.OpenFolder(folder=str(root), settings=settings), wire.Nothing)
    deadline = time.monotonic() + _SETTLE_S
    while not any(event.data["info"]["complete"] for _, event in engine.named("adapter_changed", since)):
        look()
        for _, event in engine.named("trouble", since):
            raise EngineError(str(event.data.get("message")))
        if time.monotonic() > deadline:
            raise EngineError(f"{root.name} was not indexed within {_SETTLE_S:.0f} s.")
        time.sleep(0.02)
    return _work(engine, since)


def _work(engine: EngineProcess, since: int) -> float:
    """The ms of work for the adapters after event number `since`, without validation."""
    changes = [made.data["ms"] for _, made in engine.named("adapter_changed", since)]
    return sum(spent for change in changes for stage, spent in change.items() if stage != "gate")


def _quiet(engine: EngineProcess, root: Path) -> None:
    """Wait until the work after an index (draft index, last comparison) is finished."""
    calm = 0
    while calm < 5:
        began = time.perf_counter()
        engine.call("adapter_info", wire.Folder(folder=str(root)), wire.AdapterInfo)
        calm = calm + 1 if time.perf_counter() - began < 0.01 else 0
        time.sleep(0.05)


def _request(root: Path, text: str, number: int = 0) -> wire.Complete:
    """A completion in the middle of a file. The number makes each prompt different, so that no KV cache is reused."""
    at = text.rfind("\n", 0, len(text) // 2) + 1
    prefix = f"# {number}\n{text[:at]}"
    suffix = text[at:]
    return wire.Complete(
        folder=str(root), path="a.py", language="python", prefix=prefix, suffix=suffix, max_new_tokens=16,
        max_latency_ms=20_000, max_context_tokens=512,
    )  # fmt: skip


def _timed(engine: EngineProcess, root: Path, text: str, number: int) -> float:
    """The ms of a completion, as the server sees them."""
    request = _request(root, text, number)
    return measure.seconds(lambda: engine.call("complete", request, wire.Completion)) * 1e3


def _weights(model: wire.ModelInfo) -> int:
    return model.parameters * (4 if model.dtype == "float32" else 2)


class _Peak:
    """The peak of the engine's memory."""

    def __init__(self, engine: EngineProcess) -> None:
        self._engine, self.bytes = engine, 0

    def look(self) -> None:
        """Sample the memory."""
        self.bytes = max(self.bytes, self._engine.memory)
