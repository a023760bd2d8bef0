"""Every row with the tiny model and smallest sizes; the values mean nothing."""

from __future__ import annotations

import math
import time

import pytest
from c2l_lab.benchmarks.perf import peers, replay
from c2l_lab.benchmarks.perf.rows import adapters, decoding, gpu, serving, updates
from c2l_lab.benchmarks.perf.typing import places
from c2l_lab.benchmarks.perf.workload import Workload

from c2l_lsp.config import merge
from c2l_lsp.engine import wire
from c2l_lsp.engine.session import Session


def finite(rows) -> dict[str, object]:
    found = {row.name: row for row in rows}
    assert all(row.value is None or (math.isfinite(row.value) and row.repeats) for row in rows)
    return found


def test_decoding(load: Workload):
    found = finite(decoding.decode(load))
    assert {"decode/ours", "decode/ours, plain", "decode/transformers/fp32", "decode/transformers/bf16"} <= set(found)
    judged = [row for name, row in found.items() if name.startswith("decode/transformers") and row.holds is not None]
    assert len(judged) == 1, "only the better dtype is judged"
    assert "100% of tokens" in found["decode/transformers/fp32"].note
    if not peers.has_llama():
        assert found["decode/llama.cpp/Q8_0"].note == "peer not installed"


def test_prefix_reuse_and_adapter_cost_rows(load: Workload):
    finite(decoding.prefix_reuse(load))
    assert set(finite(adapters.cost_per_token(load))) == {
        "adapter_cost_per_token", "adapter_cost_per_token/map", "adapter_cost_per_token/merged",
        "adapter_cost_per_token/unmerged",
    }  # fmt: skip
    assert len(finite(adapters.swap_pause(load))) == 2


def test_gpu_rows_run_on_cpu(load: Workload):
    for action in (gpu.decode, gpu.swap, gpu.embedding):
        finite(action(load))


def test_typing_along_a_suggestion_saves_requests(load: Workload):
    class Echo:
        """Suggests exactly the text that is typed next, so that every further key follows the suggestion."""

        def __init__(self) -> None:
            self.asked = 0

        def complete(self, request: wire.Complete, cancelled) -> wire.Completion:
            self.asked += 1
            whole = next(text for text in wholes if text.startswith(request.prefix))
            rest = whole[len(request.prefix) :]
            texts = [rest] if rest else []
            return wire.Completion(texts=texts, generation=0, prompt_tokens=1, new_tokens=1, ms=wire.Timing())

    found = places(load.roots, 2)
    wholes = [place.prefix + "".join(key.text for key in place.keys) for place in found]
    latencies = replay.replay(Echo(), found, load.settings, load.work, speed=5.0)
    keys = sum(len(place.keys) for place in found)
    assert latencies.saved + len(latencies.waits) == keys
    assert latencies.saved >= keys - 3 * len(found) - len(latencies.superseded)


def test_ghost_text_of_our_own_engine(load: Workload):
    found = finite(serving.ghost_text(load))
    assert {"keystroke_to_ghost/ours/p50", "keystroke_to_ghost/ours/p95"} <= set(found)
    assert "served without a request" in found["keystroke_to_ghost/ours/p95"].note


class InProcessEngine:
    """The methods of EngineProcess on an engine in this process. Each call returns when the engine has settled."""

    memory = 10**9

    def __init__(self, environment):
        self.events: list[tuple[float, wire.Event]] = []

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._session.engine.close()

    def hello(self, settings):
        self._session = Session(settings, self._heard)
        return self._session.engine.model_info()

    def call(self, method, params, result):
        engine = self._session.engine
        if method == "complete":
            return self._session.complete(params)
        if method == "open_folder":
            engine.open_folder(params)
        elif method == "reset":
            engine.workspace(params.folder).reset()
        if method != "adapter_info":
            self._folder = params.folder
            self._session.run_until_idle(params.folder)
        return result() if result is wire.Nothing else engine.workspace(params.folder).info()

    def named(self, name, since=0):
        return [(at, event) for at, event in self.events[since:] if event.name == name]

    def until(self, holds, timeout, what):
        while not holds():
            self._session.run_until_idle(self._folder)
            time.sleep(0.005)

    def _heard(self, event):
        if isinstance(event, wire.AdapterChanged):
            self.events.append((time.monotonic(), wire.Event(name="adapter_changed", data=wire.to_params(event))))


def test_update_rows(load: Workload, monkeypatch: pytest.MonkeyPatch):
    """The tiny model has no prior, so the engine estimates one from the folder."""
    monkeypatch.setattr(updates, "EngineProcess", InProcessEngine)
    load.settings, _ = merge(load.settings, {"adapter.updateDelayMs": 10}, source="test", machine=True)
    actions = (
        updates.save_to_generation,
        updates.update_vs_reread,
        updates.engine_memory,
        updates.busy_vs_idle,
    )
    found = finite([row for action in actions for row in action(load)])
    assert found["engine_memory"].value == pytest.approx(10**9 / 2**20, rel=0.1)
    assert 0 < found["update_vs_reread"].ratio < 1
    assert not [path for path in load.work.rglob("m0.py") if "saved_0" in path.read_text()], "files are restored"
