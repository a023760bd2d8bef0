"""`memory`: the gradient memory, without its gate."""

from __future__ import annotations

import hashlib

from c2l_lsp.bench.methods.networked import Networked, folder_of
from c2l_lsp.bench.methods.protocol import Kit, NotTrained
from c2l_lsp.engine import kinds
from c2l_lsp.model import prior as priors
from c2l_lsp.model.hypernet import Hypernetwork
from c2l_lsp.model.memory import Memory


class Memorised(Networked):
    """`memory` without its gate."""

    def __init__(self, kit: Kit) -> None:
        super().__init__(*_memory(kit))


def _memory(kit: Kit) -> tuple[Hypernetwork, str]:
    path = kit.options.weights.get("memory") or folder_of(kit.model) / kinds.PRIOR_FILE
    if not path.is_file():
        raise NotTrained(f"there is no {kinds.PRIOR_FILE} beside the model")
    memory = Memory(kit.model, priors.load(path, kit.model.digest))
    return memory, f"{memory.digest}/{hashlib.blake2b(path.read_bytes(), digest_size=8).hexdigest()}"
