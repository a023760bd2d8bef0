"""Small states, their metadata and chunk embeddings, for tests of the storage."""

from __future__ import annotations

import torch

from c2l_lsp.engine.storage.decoding import SCHEMA, SavedState
from c2l_lsp.model.hypernet.protocol import RepoState


def saved(generation=1, **changes):
    plain = {
        "schema": SCHEMA,
        "folder": "/some/where",
        "hypernetwork": "h",
        "filter_digest": "f",
        "generation": generation,
        "gate": 0.7,
        "files": {"a.py": (b"d" * 16, 10, 5, [b"k" * 16])},
    }
    return SavedState(**{**plain, **changes})


def state(seed=0):
    torch.manual_seed(seed)
    return RepoState({"S": torch.randn(8, 8, dtype=torch.float64), "n": torch.tensor(3.0, dtype=torch.float64)})


def embedding(seed):
    torch.manual_seed(seed)
    return {"q": torch.randint(-127, 127, (8, 8), dtype=torch.int8), "n": torch.tensor(4.0)}
