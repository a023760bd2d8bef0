"""Hypernetworks as methods. `static`, `evo` and `text2lora` are the heads of the Code2LoRA paper (arXiv 2606.06492)."""

from __future__ import annotations

import time
from pathlib import Path

from c2l_lab.benchmarks.methods.protocol import Adapters, Fitted, NotTrained, Setup
from c2l_lab.benchmarks.methods.state_builder import StateBuilder
from c2l_lab.repositories.cases import Case
from c2l_lab.train.hypernet.text2lora import Text2LoRA
from c2l_lsp.model.hypernet import checkpoint
from c2l_lsp.model.hypernet.code2lora import Static
from c2l_lsp.model.hypernet.encoder import EmbeddingEncoder
from c2l_lsp.model.hypernet.protocol import Hypernetwork
from c2l_lsp.model.lm.base import ASSETS, BaseModel


class HypernetworkMethod:
    """A hypernetwork that generates the adapter from one snapshot of the repository."""

    per_repository = True

    def __init__(self, network: Hypernetwork, weights: str) -> None:
        self.name: str = network.kind
        self._network = network
        self.digest = f"1/{weights}"
        self._last: tuple[str, StateBuilder] | None = None

    @property
    def network(self) -> Hypernetwork | None:
        """The hypernetwork."""
        return self._network

    def builder(self, case: Case) -> StateBuilder:
        """A builder that has embedded the files of a case's state. The last one is cached."""
        if self._last is None or self._last[0] != case.digest:
            self._last = (case.digest, StateBuilder.of(self._network, case.state))
        return self._last[1]

    def fit(self, case: Case, adapters: Adapters) -> Fitted:
        """Embed the files, build the state, generate the adapter."""
        del adapters
        self._last = None  # so that the time includes all embedding
        started = time.perf_counter()
        builder = self.builder(case)
        adapter = builder.adapter(builder.snapshot(case.state))
        return Fitted(adapter, seconds=time.perf_counter() - started)


class EvoMethod(HypernetworkMethod):
    """A hypernetwork over diffs: it starts from the oldest state of the case and applies every later change."""

    def fit(self, case: Case, adapters: Adapters) -> Fitted:
        """Replay the history and generate the adapter."""
        del adapters
        self._last = None
        started = time.perf_counter()
        builder = self.builder(case)
        adapter = builder.adapter(builder.replayed([case.states[age] for age in sorted(case.states, reverse=True)]))
        self._last = None  # its embeddings were made in other batches than those of a snapshot
        return Fitted(adapter, seconds=time.perf_counter() - started)


def folder_of(model: BaseModel) -> Path:
    """The folder of a model's files: its own, or that of a shipped model."""
    return Path(model.id) if Path(model.id).is_dir() else ASSETS / model.id


def published(setup: Setup, kind: str) -> tuple[Hypernetwork, str]:
    """A trained hypernetwork and the digest of its weights, from --weights or beside the model.

    NotTrained if there is none.
    """
    folder = setup.options.weights.get(kind) or folder_of(setup.model) / kind
    if not (folder / checkpoint.MANIFEST).is_file():
        raise NotTrained(f"there is no folder {kind} with {checkpoint.MANIFEST} beside the model")
    found = checkpoint.load(folder)
    encoder = EmbeddingEncoder.of_base(setup.model)
    network = found.hypernetwork(setup.model, encoder, Text2LoRA if kind == Text2LoRA.kind else Static)
    return network, found.manifest.sha256[:16]
