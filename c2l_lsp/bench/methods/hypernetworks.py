"""`memory`, `gated` (memory as the engine lets it live), `static`, `evo`, `text2lora`: adapters by one forward pass."""

from __future__ import annotations

import hashlib
import time
from dataclasses import dataclass
from pathlib import Path

from c2l_lsp.bench.cases import Case
from c2l_lsp.bench.follow import Follower
from c2l_lsp.bench.methods.protocol import Adapters, Fitted, Kit, NotTrained
from c2l_lsp.engine import gate, kinds
from c2l_lsp.model import checkpoint
from c2l_lsp.model import prior as priors
from c2l_lsp.model.base import ASSETS, BaseModel
from c2l_lsp.model.encoder import EmbeddingEncoder
from c2l_lsp.model.hypernet import Hypernetwork
from c2l_lsp.model.memory import Memory
from c2l_lsp.repo.snapshot import Entry


class Networked:
    """A hypernetwork as a method: the state's files as the first snapshot."""

    own = True

    def __init__(self, network: Hypernetwork, weights: str) -> None:
        self.name: str = network.kind
        self._network = network
        self.digest = f"1/{weights}"
        self._held: tuple[str, Follower] | None = None

    @property
    def network(self) -> Hypernetwork | None:
        """The hypernetwork."""
        return self._network

    def follower(self, case: Case) -> Follower:
        """What has read a case's state; kept until another case is asked for."""
        if self._held is None or self._held[0] != case.digest:
            self._held = (case.digest, Follower.of(self._network, case.state))
        return self._held[1]

    def fit(self, case: Case, adapters: Adapters) -> Fitted:
        """Read the files, fold them, make the adapter."""
        del adapters
        self._held = None  # the time is that of reading everything
        started = time.perf_counter()
        follower = self.follower(case)
        adapter = follower.adapter(follower.snapshot(case.state))
        return Fitted(adapter, seconds=time.perf_counter() - started)


class Memorised(Networked):
    """`memory` without its gate."""

    def __init__(self, kit: Kit) -> None:
        super().__init__(*_memory(kit))


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
        held = gate.held_out(files)
        trial = gate.Trial(self._model)
        for path in held:
            trial.see(files[path].entry.digest, case.state[path])
        rest = {path: text for path, text in case.state.items() if path not in held}
        judged = follower.adapter(follower.snapshot(rest))
        strength = trial.judge(judged, [files[path].entry.digest for path in held]).strength if held else 1.0
        adapter = None if whole.adapter is None else whole.adapter.scaled(strength)
        return Fitted(adapter, seconds=whole.seconds + time.perf_counter() - started)


class Evolved(Networked):
    """A hypernetwork that reads diffs: the oldest state there is, then what each later one changed."""

    def fit(self, case: Case, adapters: Adapters) -> Fitted:
        """Fold the history."""
        del adapters
        self._held = None
        started = time.perf_counter()
        follower = self.follower(case)
        adapter = follower.adapter(follower.followed([case.states[age] for age in sorted(case.states, reverse=True)]))
        self._held = None  # it has read more than a state, in batches of its own
        return Fitted(adapter, seconds=time.perf_counter() - started)


def static(kit: Kit) -> Networked:
    """The paper's static head."""
    return Networked(*_published(kit, "static"))


def evo(kit: Kit) -> Networked:
    """The paper's GRU over diffs."""
    return Evolved(*_published(kit, "evo"))


def text2lora(kit: Kit) -> Networked:
    """A LoRA from what is said about the files."""
    return Networked(*_published(kit, "text2lora"))


@dataclass(frozen=True)
class _File:
    entry: Entry
    keys: tuple[bytes, ...]


def _digest(text: str) -> bytes:
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()


def folder_of(model: BaseModel) -> Path:
    """Where a model's own files are: a folder, or the shipped model's."""
    return Path(model.id) if Path(model.id).is_dir() else ASSETS / model.id


def _memory(kit: Kit) -> tuple[Hypernetwork, str]:
    path = kit.options.weights.get("memory") or folder_of(kit.model) / kinds.PRIOR_FILE
    if not path.is_file():
        raise NotTrained(f"there is no {kinds.PRIOR_FILE} beside the model")
    memory = Memory(kit.model, priors.load(path, kit.model.digest))
    return memory, f"{memory.digest}/{hashlib.blake2b(path.read_bytes(), digest_size=8).hexdigest()}"


def _published(kit: Kit, kind: str) -> tuple[Hypernetwork, str]:
    folder = kit.options.weights.get(kind) or folder_of(kit.model) / kind
    if not (folder / checkpoint.MANIFEST).is_file():
        raise NotTrained(f"there is no {kind} folder with {checkpoint.MANIFEST} beside the model")
    found = checkpoint.load(folder)
    return found.hypernetwork(kit.model, EmbeddingEncoder.of_base(kit.model)), found.about.sha256[:16]
