"""Near-duplicate removal: MinHash signatures of files and an index that says which are new.

A signature is made where the file is read (in parallel); the index is filled by one process, in list order.
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
THRESHOLD = 0.75  # estimated Jaccard similarity of 5-token shingles from which a file counts as a copy
_WORD = re.compile(r"\w+|[^\w\s]")
_SHINGLE = 5
_SCHEME = "affine32"  # datasketch 2: values are uint32


def _crc(shingle: bytes) -> int:
    return zlib.crc32(shingle)


def signature(text: str) -> NDArray[np.uint32]:
    """The MinHash of `text`'s token shingles, (64,) uint32."""
    from datasketch import MinHash

    words = _WORD.findall(text)
    shingles = {" ".join(words[i : i + _SHINGLE]).encode() for i in range(max(1, len(words) - _SHINGLE + 1))}
    made = MinHash(num_perm=PERMUTATIONS, seed=1, hashfunc=_crc, scheme=_SCHEME)
    made.update_batch(shingles)
    return np.asarray(made.hashvalues, dtype=np.uint32)


class NearDuplicates:
    """The files kept so far; `seen` answers whether one more is a copy of any of them."""

    def __init__(self) -> None:
        """Start empty."""
        from datasketch import MinHashLSH

        self._exact: set[str] = set()
        self._index = MinHashLSH(threshold=THRESHOLD, num_perm=PERMUTATIONS)
        self._count = 0

    def _minhash(self, values: NDArray[np.uint32]) -> MinHash:
        from datasketch import MinHash

        return MinHash(num_perm=PERMUTATIONS, seed=1, hashfunc=_crc, hashvalues=values.copy(), scheme=_SCHEME)

    def seen(self, digest: str, values: NDArray[np.uint32]) -> bool:
        """True for a copy (equal `digest` or a near signature); otherwise the file is remembered as kept."""
        if digest in self._exact:
            return True
        self._exact.add(digest)
        made = self._minhash(values)
        if self._index.query(made):
            return True
        self._index.insert(self._count, made)
        self._count += 1
        return False
