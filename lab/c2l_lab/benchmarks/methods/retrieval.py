"""`retrieval`: the repository's chunks most like the text before the cursor (BM25), put before the prompt.

The paper's setting is 3 × 512 tokens. Where that does not fit, the budget is half of the model's positions, in chunks
of 256: two of them on a model of 1024. Chunks are whole lines of the files that every other method learns from.
"""

from __future__ import annotations

import re
import time

import numpy as np
from rank_bm25 import BM25Okapi

from c2l_lab.benchmarks.methods.protocol import Adapters, Fitted, Kit
from c2l_lab.benchmarks.repositories.cases import Case
from c2l_lsp.model.lm.base import BaseModel

CHUNKS, CHUNK = 3, 512
QUERY_CHARS = 1200
"""The end of the text before the cursor that is searched with."""

_WORD = re.compile(r"[A-Za-z]+|\d+")


def budget_of(model: BaseModel) -> tuple[int, int]:
    """How many chunks of how many tokens are put before a prompt."""
    if model.max_context >= 2 * CHUNKS * CHUNK:
        return CHUNKS, CHUNK
    size = min(CHUNK // 2, model.max_context // 4)
    return max(1, model.max_context // 2 // size), size


def words(text: str) -> list[str]:
    """Words of names, lower case: `parse_file` and `parseFile` share both of theirs."""
    return [word.lower() for word in _WORD.findall(re.sub(r"(?<=[a-z])(?=[A-Z])", " ", text))]


def chunks(model: BaseModel, text: str, size: int) -> list[str]:
    """Whole lines of at most `size` tokens together (a longer line is a chunk by itself)."""
    found: list[str] = []
    held, room = "", size
    for line in text.splitlines(keepends=True):
        cost = len(model.encode(line))
        if held and cost > room:
            found.append(held)
            held, room = "", size
        held, room = held + line, room - cost
    return [*found, held] if held.strip() else found


class Retrieval:
    """BM25 over chunks."""

    name, own, network = "retrieval", False, None

    def __init__(self, kit: Kit) -> None:
        self._model = kit.model
        self._count, self._size = budget_of(kit.model)
        self.digest = f"1/{self._count}x{self._size}"

    def fit(self, case: Case, adapters: Adapters) -> Fitted:
        """An index of the state's chunks."""
        del adapters
        started = time.perf_counter()
        found = [chunk for path in sorted(case.state) for chunk in chunks(self._model, case.state[path], self._size)]
        index = BM25Okapi([words(chunk) or [""] for chunk in found])

        def context(before: str, path: str) -> str:
            del path
            scores = np.asarray(index.get_scores(words(before[-QUERY_CHARS:])))
            best = [int(i) for i in np.argsort(-scores, kind="stable")[: self._count] if scores[i] > 0]
            return (
                "\n".join(found[i].rstrip("\n") for i in reversed(best)) + "\n" if best else ""
            )  # the best is nearest

        return Fitted(context=context, budget=self._count * self._size, seconds=time.perf_counter() - started)
