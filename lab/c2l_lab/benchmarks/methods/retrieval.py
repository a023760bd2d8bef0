"""`retrieval`: the chunks of the repository with the highest BM25 scores, put before the prompt.

The query is the text before the cursor.

The paper uses 3 chunks of 512 tokens. If the model is too small for that, the budget is half of its positions in chunks
of 256 tokens: 2 chunks for 1,024 positions. Chunks are whole lines of the files of the state.
"""

from __future__ import annotations

import re
import time

import numpy as np
from rank_bm25 import BM25Okapi

from c2l_lab.benchmarks.methods.protocol import Adapters, Fitted, Setup
from c2l_lab.repositories.cases import Case
from c2l_lsp.model.lm.base import BaseModel

CHUNKS, CHUNK = 3, 512
QUERY_CHARS = 1200
"""Characters before the cursor that form the query."""

_WORD = re.compile(r"[A-Za-z]+|\d+")


def budget_of(model: BaseModel) -> tuple[int, int]:
    """The number of chunks before a prompt and their size in tokens."""
    if model.max_context >= 2 * CHUNKS * CHUNK:
        return CHUNKS, CHUNK
    size = min(CHUNK // 2, model.max_context // 4)
    return max(1, model.max_context // 2 // size), size


def words(text: str) -> list[str]:
    """The words of a text in lower case. Identifiers are split: `parse_file` and `parseFile` give the same words."""
    return [word.lower() for word in _WORD.findall(re.sub(r"(?<=[a-z])(?=[A-Z])", " ", text))]


def chunks(model: BaseModel, text: str, size: int) -> list[str]:
    """A text cut into chunks of whole lines with at most `size` tokens; a longer line is a chunk of its own."""
    found: list[str] = []
    chunk, room = "", size
    for line in text.splitlines(keepends=True):
        cost = len(model.encode(line))
        if chunk and cost > room:
            found.append(chunk)
            chunk, room = "", size
        chunk, room = chunk + line, room - cost
    return [*found, chunk] if chunk.strip() else found


class Retrieval:
    """BM25 over the chunks of a repository."""

    name, per_repository, network = "retrieval", False, None

    def __init__(self, setup: Setup) -> None:
        self._model = setup.model
        self._count, self._size = budget_of(setup.model)
        self.digest = f"1/{self._count}x{self._size}"

    def fit(self, case: Case, adapters: Adapters) -> Fitted:
        """A context from an index of the state's chunks."""
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
            )  # the best chunk comes last, next to the prompt

        return Fitted(context=context, budget=self._count * self._size, seconds=time.perf_counter() - started)
