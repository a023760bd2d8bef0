"""Rows about the token index: time to the first generation, memory, look-up, and how fast it follows changes."""

from __future__ import annotations

import itertools
import random
import shutil
import time
from pathlib import Path

from c2l_lab.benchmarks.perf import measure
from c2l_lab.benchmarks.perf.measure import Bar, PerfRow
from c2l_lab.benchmarks.perf.rows.updates import environment
from c2l_lab.benchmarks.perf.workload import Workload
from c2l_lab.clients.engine import EngineProcess
from c2l_lsp.engine import wire
from c2l_lsp.engine.indexing.token_indexer import index_of

SIZES = (100_000, 1_000_000, 10_000_000, 50_000_000)
"""Bytes of text of the folders that are opened."""

_LOOKED_UP = 2_000_000
"""Tokens of the index in which look-ups are timed."""

_FILES, _SAVES, _SWITCHED = 5000, 40, 500
_LIMIT_S = 600.0
_SECONDS_PER_MB, _LEAST_S = 5.0, 1.0  # bar of the first generation


def first_generation(load: Workload) -> list[PerfRow]:
    """From opening a folder to the first generation, by the amount of text; the model is loaded already."""
    rows = []
    for size in SIZES[:1] if load.small else SIZES:
        folder = made_folder(load, size)
        times = []
        for _ in range(1 if size > 5_000_000 or load.small else load.repeats):
            with EngineProcess(environment(load)) as engine:
                engine.hello(load.settings)
                times.append(_opened(engine, folder, load))
        bar = Bar(max(_LEAST_S, _SECONDS_PER_MB * size / 1e6))
        note = f"{sum(1 for _ in folder.rglob('*.py'))} files"
        rows.append(measure.row(f"first_generation/{size // 1000}kB", times, "s", bar=bar, note=note))
    return rows


def token_look_up(load: Workload) -> list[PerfRow]:
    """The time of one look-up, the bytes of a token, and the time of an update by one file."""
    wanted = 20_000 if load.small else _LOOKED_UP
    index = index_of(load.model, distinct_texts(load, wanted * 4).values())
    rng = random.Random(0)  # noqa: S311 - a sample
    starts = [rng.randrange(65, len(index.ids)) for _ in range(200 if load.small else 20_000)]
    asked = [[token for token in index.ids[at - 64 : at].tolist() if token >= 0] for at in starts]
    note = f"{len(index)} tokens"

    def look_up() -> float:
        return measure.seconds(lambda: [index.find(before) for before in asked if before]) / len(asked) * 1e3

    name = b"x" * 16
    merges = [measure.seconds(lambda: index.updated({name: asked[0]}, [name])) * 1e3 for _ in range(load.repeats)]
    size = (index.ids.nbytes + index.order.nbytes) / max(1, len(index))
    return [
        measure.row("token_look_up", [look_up() for _ in range(load.repeats)], "ms", bar=Bar(0.1), note=note),
        measure.row("token_look_up/size", [size], "bytes per token", bar=Bar(12.0), note=note),
        measure.row("token_look_up/update", merges, "ms", note=note),
    ]


def token_follow_up(load: Workload) -> list[PerfRow]:
    """From a save to the generation that contains it, in a folder of many files; and after many files change."""
    files = 20 if load.small else _FILES
    folder = made_folder(load, files * 2000, files)
    paths = sorted(folder.rglob("*.py"))
    saves: list[float] = []
    with EngineProcess(environment(load)) as engine:
        engine.hello(load.settings)
        _opened(engine, folder, load)
        for number in range(2 if load.small else _SAVES):
            path = paths[number * 7 % len(paths)]
            saves.append(
                _changed(engine, folder, [path], f"def saved_{number}(order):\n    return order.total + {number}\n")
            )
        switched = _changed(engine, folder, paths[: 5 if load.small else _SWITCHED], "switched = True\n")
    low, high = measure.quartiles(saves)
    p95, bar = measure.percentile(saves, 0.95), Bar(1.0 + load.settings.adapter.update_delay_ms / 1e3)
    note = f"p95, with {load.settings.adapter.update_delay_ms} ms of quiet time; {files} files"
    return [
        PerfRow("token_follow_up/save", p95, "s", None, str(bar), bar.holds(p95), len(saves), low, high, note),
        measure.row("token_follow_up/switch", [switched], "s", bar=Bar(10.0), note=f"{_SWITCHED} files change at once"),
    ]


def distinct_texts(load: Workload, size: int) -> dict[str, str]:
    """About `size` bytes of Python text by path. Texts that repeat get names of their own, so that no chunk repeats."""
    found, used = dict[str, str](), 0
    for number, text in enumerate(itertools.cycle(load.texts(4000))):
        if used >= size:
            return found
        text = text.replace("self", f"self_{number}")
        found[f"package_{number % 40}/module_{number}.py"] = text
        used += len(text.encode())
    return found


def made_folder(load: Workload, size: int, files: int = 0) -> Path:
    """A folder with about `size` bytes of text; with `files`, that many files of equal shares."""
    folder = load.work / f"tokens-{size}-{files}"
    shutil.rmtree(folder, ignore_errors=True)
    texts = distinct_texts(load, size)
    if files:
        whole = "".join(texts.values()).splitlines(keepends=True)
        share = max(1, len(whole) // files)
        texts = {f"p{n % 50}/m{n}.py": "".join(whole[n * share : (n + 1) * share]) for n in range(files)}
    for path, text in texts.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text, encoding="utf-8")
    return folder


def _opened(engine: EngineProcess, folder: Path, load: Workload) -> float:
    """Open a folder; the seconds until its first generation."""
    since, began = len(engine.events), time.monotonic()
    engine.call("open_folder", wire.OpenFolder(folder=str(folder), settings=load.settings), wire.Nothing)
    return _generation_at(engine, since) - began


def _changed(engine: EngineProcess, folder: Path, paths: list[Path], addition: str) -> float:
    """Append to some files; the seconds from the last write until generations contain all of them.

    Generations of further parts of the folder, which come at any time, do not count.
    """
    since = len(engine.events)
    for path in paths:
        path.write_text(f"{path.read_text(encoding='utf-8')}\n\n{addition}", encoding="utf-8")
    began, names = time.monotonic(), {str(path.relative_to(folder)) for path in paths}

    def containing() -> list[tuple[float, int]]:
        made = [(at, event.data) for at, event in engine.named("adapter_changed", since)]
        return [(at, int(data["changed_files"])) for at, data in made if names & set(data["paths"])]

    engine.until(lambda: sum(count for _, count in containing()) >= len(paths), _LIMIT_S, "new generation")
    return containing()[-1][0] - began


def _generation_at(engine: EngineProcess, since: int) -> float:
    engine.until(lambda: engine.named("adapter_changed", since), _LIMIT_S, "new generation")
    return engine.named("adapter_changed", since)[0][0]
