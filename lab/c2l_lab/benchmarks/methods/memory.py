"""`memory`: the gradient memory, without its gate."""

from __future__ import annotations

import hashlib

from c2l_lab.benchmarks.methods.networked import Networked, folder_of
from c2l_lab.benchmarks.methods.protocol import Kit, NotTrained
from c2l_lsp.engine.adaptation import registry
from c2l_lsp.model.hypernet import prior as priors
from c2l_lsp.model.hypernet.gradient_memory import GradientMemory
from c2l_lsp.model.hypernet.protocol import Hypernetwork


class Memorised(Networked):
    """`memory` without its gate."""

    def __init__(self, kit: Kit) -> None:
        super().__init__(*_memory(kit))


def _memory(kit: Kit) -> tuple[Hypernetwork, str]:
    path = kit.options.weights.get("memory") or folder_of(kit.model) / registry.PRIOR_FILE
    if not path.is_file():
        raise NotTrained(f"there is no {registry.PRIOR_FILE} beside the model")
    memory = GradientMemory(kit.model, priors.load(path, kit.model.digest))
    return memory, f"{memory.digest}/{hashlib.blake2b(path.read_bytes(), digest_size=8).hexdigest()}"
