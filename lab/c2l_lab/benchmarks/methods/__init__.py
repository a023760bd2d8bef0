"""The methods of the adapter table. A new method is a file here and a row of TABLE.

How methods are scored and reported belongs in `adapters`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from c2l_lab.benchmarks.methods.bare import Bare
from c2l_lab.benchmarks.methods.dependencies import Dependencies
from c2l_lab.benchmarks.methods.evo import evo
from c2l_lab.benchmarks.methods.full import FullTuning
from c2l_lab.benchmarks.methods.halves import Half
from c2l_lab.benchmarks.methods.mean import Mean
from c2l_lab.benchmarks.methods.memory import Memorised
from c2l_lab.benchmarks.methods.protocol import Kit, Method, NotTrained
from c2l_lab.benchmarks.methods.retrieval import Retrieval
from c2l_lab.benchmarks.methods.sgd import RepositoryLora
from c2l_lab.benchmarks.methods.shared import SharedLora
from c2l_lab.benchmarks.methods.static import static
from c2l_lab.benchmarks.methods.text2lora import text2lora
from c2l_lab.benchmarks.methods.validated import Gated
from c2l_lsp.errors import AdapterError

TABLE: dict[str, Callable[[Kit], Method]] = {
    "base": Bare,
    "memory": lambda kit: kit.once("memory", lambda: Memorised(kit)),
    "gated": Gated,
    "map": lambda kit: Half(kit, "map"),
    "recall": lambda kit: Half(kit, "recall"),
    "mean": Mean,
    "retrieval": Retrieval,
    "dependencies": Dependencies,
    "static": static,
    "evo": evo,
    "text2lora": text2lora,
    "shared": SharedLora,
    "sgd": RepositoryLora,
    "full": FullTuning,
}
"""Name → how it is built. `sgd` is the ceiling: a LoRA of the repository's own by gradient descent."""

__all__ = ["TABLE", "Kit", "Method", "NotTrained", "build"]


def build(names: Sequence[str], kit: Kit) -> tuple[list[Method], dict[str, str]]:
    """The methods of these names, base first, and why others cannot run here. AdapterError for an unknown name."""
    unknown = sorted(set(names) - set(TABLE))
    if unknown:
        raise AdapterError(f"There is no method {', '.join(unknown)}; there are {', '.join(TABLE)}.")
    found: list[Method] = []
    missing: dict[str, str] = {}
    for name in TABLE:
        if name == "base" or name in names:
            try:
                found.append(TABLE[name](kit))
            except NotTrained as why:
                missing[name] = str(why)
    return found, missing
