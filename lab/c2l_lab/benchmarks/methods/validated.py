"""`gated`: memory as the engine lets it live, at the strength that held-out files of the state allow."""

from __future__ import annotations

import hashlib
import time
from dataclasses import dataclass

from c2l_lab.benchmarks.methods.memory import Memorised
from c2l_lab.benchmarks.methods.protocol import Adapters, Fitted, Kit
from c2l_lab.benchmarks.repositories.cases import Case
from c2l_lsp.engine.adaptation import validation
from c2l_lsp.repo.history.snapshot import Entry


class Gated:
    """`memory` behind the engine's gate: tried on a few held-out files of the state, weakened or kept back."""

    name, own, network = "gated", False, None  # its diagnostics are memory's

    def __init__(self, kit: Kit) -> None:
        self._memory: Memorised = kit.once("memory", lambda: Memorised(kit))
        self._model = kit.model
        self.digest = self._memory.digest

    def fit(self, case: Case, adapters: Adapters) -> Fitted:
        """The adapter at the strength that the gate allows; the seconds are memory's and the trial's."""
        whole = adapters.fitted(self._memory, case.name)
        started = time.perf_counter()
        follower = self._memory.follower(case)
        files = {path: _File(Entry(_digest(text), len(text), 0), (b"1",)) for path, text in case.state.items()}
        held = validation.held_out(files)
        trial = validation.Validator(self._model)
        for path in held:
            trial.add(files[path].entry.digest, case.state[path])
        rest = {path: text for path, text in case.state.items() if path not in held}
        judged = follower.adapter(follower.snapshot(rest))
        verdict = trial.validate(judged, [files[path].entry.digest for path in held])
        adapter = None if whole.adapter is None else whole.adapter.scaled(verdict.strength, verdict.knn_strength)
        return Fitted(adapter, seconds=whole.seconds + time.perf_counter() - started)


@dataclass(frozen=True)
class _File:
    entry: Entry
    keys: tuple[bytes, ...]


def _digest(text: str) -> bytes:
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()
