"""The gradient memory and its variants.

| method   | what it is                                                                                     |
|----------|------------------------------------------------------------------------------------------------|
| `memory` | as the engine makes it, but not validated: map of a sample, keys up to 8 MB, all tokens        |
| `tokens` | the token index alone, which is live before any forward pass                                   |
| `gated-tokens` | `tokens` with the engine's validation, as it goes live                                 |
| `keys`   | `memory` without the token index                                                               |
| `gated`  | `memory` with the engine's validation, which may weaken or reject the adapter                   |
| `map`    | the final map of `memory` alone                                                                |
| `recall` | the kNN memory of `memory` alone                                                               |
| `mean`   | the mean `memory` adapter of the other repositories: an adapter without conditioning           |
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace

from c2l_lab.benchmarks.adapters import merge
from c2l_lab.benchmarks.methods.hypernetworks import HypernetworkMethod, folder_of
from c2l_lab.benchmarks.methods.protocol import Adapters, Fitted, Method, NotTrained, Setup
from c2l_lab.benchmarks.methods.state_builder import StateBuilder
from c2l_lab.repositories.cases import Case
from c2l_lsp import config
from c2l_lsp.engine.adaptation import registry, validation
from c2l_lsp.engine.adaptation.sample import GRADIENT_BYTES, select
from c2l_lsp.engine.indexing.token_indexer import RULE, index_of
from c2l_lsp.errors import CorpusError
from c2l_lsp.model.adapter import mixture
from c2l_lsp.model.adapter.lora import Adapter
from c2l_lsp.model.adapter.mixture import MixtureGate
from c2l_lsp.model.adapter.token_index import TokenIndex
from c2l_lsp.model.hypernet import prior as priors
from c2l_lsp.model.hypernet.gradient_memory import GradientMemory
from c2l_lsp.model.lm.base import BaseModel
from c2l_lsp.repo.history.snapshot import Entry


def memory_method(setup: Setup) -> MemoryMethod:
    """`memory`, built once for all methods that derive from it. NotTrained if the model has no prior."""

    def build() -> MemoryMethod:
        path = setup.options.weights.get("memory") or folder_of(setup.model) / registry.PRIOR_FILE
        if not path.is_file():
            raise NotTrained(f"there is no {registry.PRIOR_FILE} beside the model")
        memory = GradientMemory(setup.model, priors.load(path, setup.model.digest))
        weights = hashlib.blake2b(path.read_bytes(), digest_size=8).hexdigest()
        return MemoryMethod(memory, f"{memory.digest}/{weights}")

    return setup.once("memory", build)


SAMPLE_BYTES = config.Adapter().max_index_kb * 1024
"""Text that the model reads of a folder by default."""


class MemoryMethod(HypernetworkMethod):
    """`memory`: the state of a sample of the files, and the token index of all of them."""

    def __init__(self, network: GradientMemory, weights: str) -> None:
        super().__init__(network, weights)
        self._model = network.model
        self.digest = f"3/{weights}/{gate_digest(network.gate)}"

    def builder(self, case: Case) -> StateBuilder:
        """A builder that has embedded the sample."""
        if self._last is None or self._last[0] != case.digest:
            texts = sampled(case.state, SAMPLE_BYTES)
            keys_only = texts.keys() - sampled(texts, GRADIENT_BYTES).keys()
            self._last = (case.digest, StateBuilder.of(self._network, texts, keys_only))
        return self._last[1]

    def adapter(self, case: Case, texts: Mapping[str, str]) -> Adapter:
        """The adapter of some files of a case."""
        builder = self.builder(case)
        state = builder.snapshot(
            {path: text for path, text in sampled(case.state, SAMPLE_BYTES).items() if path in texts}
        )
        gate = mixture.load(self._model.id, self._model.digest)
        return builder.adapter(state).with_tokens(index_of(self._model, texts.values()), self._model.d, gate)

    def fit(self, case: Case, adapters: Adapters) -> Fitted:
        """Embed the sample, build the state, generate the adapter; index all files."""
        del adapters
        self._last = None  # so that the time includes all embedding
        started = time.perf_counter()
        return Fitted(self.adapter(case, case.state), seconds=time.perf_counter() - started)


def sampled(texts: Mapping[str, str], size: int) -> dict[str, str]:
    """The files that the engine chooses within a limit of `size` bytes."""
    snapshot = {path: Entry(b"", len(text.encode("utf-8", "surrogatepass")), 0) for path, text in texts.items()}
    chosen = select(snapshot, size)
    return {path: text for path, text in texts.items() if path in chosen}


def gate_digest(gate: MixtureGate) -> str:
    """A digest of a mixture gate."""
    return hashlib.blake2b(gate.to_vector().tobytes(), digest_size=8).hexdigest()


class Tokens:
    """`tokens`: needs no prior and no forward pass."""

    name, per_repository, network = "tokens", False, None

    def __init__(self, setup: Setup) -> None:
        self._model = setup.model
        self._gate = mixture.load(setup.model.id, setup.model.digest)
        self.digest = f"1/{RULE}/{gate_digest(self._gate)}"

    def fit(self, case: Case, adapters: Adapters) -> Fitted:
        """Index all files."""
        del adapters
        started = time.perf_counter()
        return Fitted(self.adapter(case.state.values()), seconds=time.perf_counter() - started)

    def adapter(self, texts: Iterable[str]) -> Adapter:
        """The adapter of some texts."""
        adapter = Adapter(self._model.digest, "memory")
        return adapter.with_tokens(index_of(self._model, texts), self._model.d, self._gate)


class GatedTokens:
    """`gated-tokens`: the engine's validation on held-out files of the folder decides the strength of `tokens`."""

    name, per_repository, network = "gated-tokens", False, None

    def __init__(self, setup: Setup) -> None:
        self._tokens, self._model = Tokens(setup), setup.model
        self.digest = f"{validation.RULE}/{self._tokens.digest}"

    def fit(self, case: Case, adapters: Adapters) -> Fitted:
        """The adapter of `tokens` at the validated strength. Its seconds include the validation."""
        whole = adapters.fitted(self._tokens, case.name)
        started = time.perf_counter()
        result = validated(self._model, case, lambda rest: self._tokens.adapter(rest.values()))
        return _scaled(whole, result, time.perf_counter() - started)


class MemoryPart:
    """`map`, `recall` or `keys`. Its seconds are those of the whole adapter."""

    per_repository, network = False, None  # `memory` is compared across repositories, its parts are not

    def __init__(self, setup: Setup, name: str) -> None:
        self.name = name
        self._memory, self._model = memory_method(setup), setup.model
        self._gate = mixture.load(setup.model.id, setup.model.digest)
        self.digest = self._memory.digest

    def fit(self, case: Case, adapters: Adapters) -> Fitted:
        """The adapter of `memory` without its other part."""
        whole = adapters.fitted(self._memory, case.name)
        if whole.adapter is None:
            return whole
        adapter = whole.adapter
        parts: dict[str, Callable[[], Adapter]] = {
            "map": adapter.without_knn,
            "recall": lambda: replace(adapter, final_map=None),
            "keys": lambda: adapter.with_tokens(TokenIndex(), self._model.d, self._gate),
        }
        return replace(whole, adapter=parts[self.name]())


class GatedMemory:
    """`gated`: the engine's validation on held-out files of the state decides the strength of the adapter."""

    name, per_repository, network = "gated", False, None

    def __init__(self, setup: Setup) -> None:
        self._memory = memory_method(setup)
        self._model = setup.model
        self.digest = f"{validation.RULE}/{self._memory.digest}"

    def fit(self, case: Case, adapters: Adapters) -> Fitted:
        """The adapter at the validated strength. Its seconds include the validation."""
        whole = adapters.fitted(self._memory, case.name)
        started = time.perf_counter()
        result = validated(self._model, case, lambda rest: self._memory.adapter(case, rest))
        return _scaled(whole, result, time.perf_counter() - started)


def validated(
    model: BaseModel, case: Case, adapter: Callable[[Mapping[str, str]], Adapter]
) -> validation.ValidationResult:
    """The engine's validation of the adapter that `adapter` makes of some files, on held-out files of the state."""
    files = {path: _digest(text) for path, text in case.state.items()}
    held_out = validation.held_out(files)
    validator = validation.Validator(model)
    for path in held_out:
        validator.add(files[path], case.state[path])
    rest = {path: text for path, text in case.state.items() if path not in held_out}
    return validator.validate(adapter(rest), [files[path] for path in held_out])


def _scaled(whole: Fitted, result: validation.ValidationResult, seconds: float) -> Fitted:
    """A result at the validated strengths, after as many seconds more."""
    adapter = None if whole.adapter is None else whole.adapter.scaled(result.strength, result.knn_strength)
    return Fitted(adapter, seconds=whole.seconds + seconds)


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
