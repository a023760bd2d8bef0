"""The methods that `bench adapt` compares. To add a method, add a class here and a row to TABLE.

Scoring and reports belong in `adapters`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from c2l_lab.benchmarks.methods.base import Base
from c2l_lab.benchmarks.methods.dependencies import Dependencies
from c2l_lab.benchmarks.methods.gradient_descent import FullTuning, RepositoryLora
from c2l_lab.benchmarks.methods.hypernetworks import EvoMethod, HypernetworkMethod, published
from c2l_lab.benchmarks.methods.memory import GatedMemory, GatedTokens, MeanMemory, MemoryPart, Tokens, memory_method
from c2l_lab.benchmarks.methods.protocol import Method, NotTrained, Setup
from c2l_lab.benchmarks.methods.retrieval import Retrieval
from c2l_lab.benchmarks.methods.shared import SharedLora
from c2l_lsp.errors import AdapterError

TABLE: dict[str, Callable[[Setup], Method]] = {
    "base": Base,
    "memory": memory_method,
    "gated": GatedMemory,
    "tokens": Tokens,
    "gated-tokens": GatedTokens,
    "keys": lambda setup: MemoryPart(setup, "keys"),
    "map": lambda setup: MemoryPart(setup, "map"),
    "recall": lambda setup: MemoryPart(setup, "recall"),
    "mean": MeanMemory,
    "retrieval": Retrieval,
    "dependencies": Dependencies,
    "static": lambda setup: HypernetworkMethod(*published(setup, "static")),
    "evo": lambda setup: EvoMethod(*published(setup, "evo")),
    "text2lora": lambda setup: HypernetworkMethod(*published(setup, "text2lora")),
    "shared": SharedLora,
    "sgd": RepositoryLora,
    "full": FullTuning,
}
"""Name of a method → its constructor. Committed results use these names."""

__all__ = ["TABLE", "Method", "NotTrained", "Setup", "build"]


def build(names: Sequence[str], setup: Setup) -> tuple[list[Method], dict[str, str]]:
    """The methods of these names, the base model first, and the reasons why others cannot run.

    AdapterError for an unknown name.
    """
    unknown = sorted(set(names) - set(TABLE))
    if unknown:
        raise AdapterError(f"Unknown method {', '.join(unknown)}. Known methods: {', '.join(TABLE)}.")
    found: list[Method] = []
    missing: dict[str, str] = {}
    for name in TABLE:
        if name == "base" or name in names:
            try:
                found.append(TABLE[name](setup))
            except NotTrained as reason:
                missing[name] = str(reason)
    return found, missing
