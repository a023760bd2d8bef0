"""Near-duplicate removal with MinHash signatures and locality-sensitive hashing (LSH).

The processes that read files compute the signatures in parallel. One process adds them to the index, in list order.
"""

from __future__ import annotations

import re
import zlib
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from datasketch import MinHash

PERMUTATIONS = 64
THRESHOLD = 0.75  # estimated Jaccard similarity of 5-token shingles at which files count as near-duplicates
_WORD = re.compile(r"\w+|[^\w\s]")
_SHINGLE = 5
_SCHEME = "affine32"  # datasketch 2: values are uint32


def _crc(shingle: bytes) -> int:
    return zlib.crc32(shingle)


def signature(text: str) -> NDArray[np.uint32]:
    """Return the MinHash signature of the token shingles of `text`, (64,) uint32."""
    from datasketch import MinHash

    words = _WORD.findall(text)
    shingles = {" ".join(words[i : i + _SHINGLE]).encode() for i in range(max(1, len(words) - _SHINGLE + 1))}
    minhash = MinHash(num_perm=PERMUTATIONS, seed=1, hashfunc=_crc, scheme=_SCHEME)
    minhash.update_batch(shingles)
    return np.asarray(minhash.hashvalues, dtype=np.uint32)


class NearDuplicates:
    """An index of accepted files that detects copies of them."""

    def __init__(self) -> None:
        from datasketch import MinHashLSH

        self._exact: set[str] = set()
        self._index = MinHashLSH(threshold=THRESHOLD, num_perm=PERMUTATIONS)
        self._count = 0

    def _minhash(self, values: NDArray[np.uint32]) -> MinHash:
        from datasketch import MinHash

        return MinHash(num_perm=PERMUTATIONS, seed=1, hashfunc=_crc, hashvalues=values.copy(), scheme=_SCHEME)

    def is_duplicate(self, digest: str, values: NDArray[np.uint32]) -> bool:
        """Return whether a file is a copy of an accepted one, by digest or signature. If not, accept it."""
        if digest in self._exact:
            return True
        self._exact.add(digest)
        minhash = self._minhash(values)
        if self._index.query(minhash):
            return True
        self._index.insert(self._count, minhash)
        self._count += 1
        return False
