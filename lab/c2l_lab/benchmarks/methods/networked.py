"""What every hypernetwork of the table shares: a case's state in one forward pass, and where weights are found."""

from __future__ import annotations

import time
from pathlib import Path

from c2l_lab.benchmarks.methods.protocol import Adapters, Fitted, Kit, NotTrained
from c2l_lab.benchmarks.repositories.cases import Case
from c2l_lab.benchmarks.repositories.states import Follower
from c2l_lsp.model.hypernet import checkpoint
from c2l_lsp.model.hypernet.encoder import EmbeddingEncoder
from c2l_lsp.model.hypernet.protocol import Hypernetwork
from c2l_lsp.model.lm.base import ASSETS, BaseModel


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


def folder_of(model: BaseModel) -> Path:
    """Where a model's own files are: a folder, or the shipped model's."""
    return Path(model.id) if Path(model.id).is_dir() else ASSETS / model.id


def published(kit: Kit, kind: str) -> tuple[Hypernetwork, str]:
    """A trained head and its digest: named by --weights, or beside the model. NotTrained if there is none."""
    folder = kit.options.weights.get(kind) or folder_of(kit.model) / kind
    if not (folder / checkpoint.MANIFEST).is_file():
        raise NotTrained(f"there is no {kind} folder with {checkpoint.MANIFEST} beside the model")
    found = checkpoint.load(folder)
    return found.hypernetwork(kit.model, EmbeddingEncoder.of_base(kit.model)), found.manifest.sha256[:16]
