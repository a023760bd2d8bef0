"""The gradient memory and its variants.

| method   | what it is                                                                                     |
|----------|------------------------------------------------------------------------------------------------|
| `memory` | the gradient memory without validation                                                         |
| `gated`  | `memory` with the engine's validation, which may weaken or reject the adapter                   |
| `map`    | the final map of `memory` alone                                                                |
| `recall` | the kNN memory of `memory` alone                                                               |
| `mean`   | the mean `memory` adapter of the other repositories: an adapter without conditioning           |
"""

from __future__ import annotations

import hashlib
import time
from dataclasses import dataclass, replace

from c2l_lab.benchmarks.adapters import merge
from c2l_lab.benchmarks.methods.hypernetworks import HypernetworkMethod, folder_of
from c2l_lab.benchmarks.methods.protocol import Adapters, Fitted, Method, NotTrained, Setup
from c2l_lab.benchmarks.repositories.cases import Case
from c2l_lsp.engine.adaptation import registry, validation
from c2l_lsp.errors import CorpusError
from c2l_lsp.model.adapter.lora import Adapter
from c2l_lsp.model.hypernet import prior as priors
from c2l_lsp.model.hypernet.gradient_memory import GradientMemory
from c2l_lsp.repo.history.snapshot import Entry


def memory_method(setup: Setup) -> HypernetworkMethod:
    """`memory`, built once for all methods that derive from it. NotTrained if the model has no prior."""

    def build() -> HypernetworkMethod:
        path = setup.options.weights.get("memory") or folder_of(setup.model) / registry.PRIOR_FILE
        if not path.is_file():
            raise NotTrained(f"there is no {registry.PRIOR_FILE} beside the model")
        memory = GradientMemory(setup.model, priors.load(path, setup.model.digest))
        weights = hashlib.blake2b(path.read_bytes(), digest_size=8).hexdigest()
        return HypernetworkMethod(memory, f"{memory.digest}/{weights}")

    return setup.once("memory", build)


class MemoryPart:
    """`map` or `recall`. Its seconds are those of the whole adapter."""

    per_repository, network = False, None  # `memory` is compared across repositories, its parts are not

    def __init__(self, setup: Setup, name: str) -> None:
        self.name = name
        self._memory = memory_method(setup)
        self.digest = self._memory.digest

    def fit(self, case: Case, adapters: Adapters) -> Fitted:
        """The adapter of `memory` without its other part."""
        whole = adapters.fitted(self._memory, case.name)
        if whole.adapter is None:
            return whole
        part = whole.adapter.without_knn() if self.name == "map" else replace(whole.adapter, final_map=None)
        return replace(whole, adapter=part)


class GatedMemory:
    """`gated`: the engine's validation on held-out files of the state decides the strength of the adapter."""

    name, per_repository, network = "gated", False, None

    def __init__(self, setup: Setup) -> None:
        self._memory = memory_method(setup)
        self._model = setup.model
        self.digest = self._memory.digest

    def fit(self, case: Case, adapters: Adapters) -> Fitted:
        """The adapter at the validated strength. Its seconds include the validation."""
        whole = adapters.fitted(self._memory, case.name)
        started = time.perf_counter()
        builder = self._memory.builder(case)
        files = {path: _File(Entry(_digest(text), len(text), 0), (b"1",)) for path, text in case.state.items()}
        held_out = validation.held_out(files)
        validator = validation.Validator(self._model)
        for path in held_out:
            validator.add(files[path].entry.digest, case.state[path])
        rest = {path: text for path, text in case.state.items() if path not in held_out}
        adapter = builder.adapter(builder.snapshot(rest))
        result = validator.validate(adapter, [files[path].entry.digest for path in held_out])
        scaled = None if whole.adapter is None else whole.adapter.scaled(result.strength, result.knn_strength)
        return Fitted(scaled, seconds=whole.seconds + time.perf_counter() - started)


@dataclass(frozen=True)
class _File:
    entry: Entry
    keys: tuple[bytes, ...]


def _digest(text: str) -> bytes:
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()


class MeanMemory:
    """`mean`: leave-one-out, so the mean does not contain the adapter of the repository that is scored."""

    name, per_repository, network = "mean", False, None

    def __init__(self, setup: Setup) -> None:
        self._memory = memory_method(setup)
        self.digest = f"1/{self._memory.digest}"

    def fit(self, case: Case, adapters: Adapters) -> Fitted:
        """The mean of the other repositories' adapters."""
        return Fitted(mean_without(self._memory, case.name, adapters))


def mean_without(method: Method, name: str, adapters: Adapters) -> Adapter:
    """The mean ΔW of a method over all repositories except `name`. CorpusError if there is no other repository."""
    others = [other for other in adapters.names if other != name]
    if not others:
        raise CorpusError("A mean adapter needs at least two repositories.")
    found = [adapters.fitted(method, other).adapter for other in others]
    present = [adapter for adapter in found if adapter is not None]
    return merge.combine([(1 / len(others), merge.total(present))], present[0].base, "mean")
