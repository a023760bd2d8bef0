"""The suffix array against a comparison with every position, on texts with many repetitions."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence

import pytest
from c2l_lab.train.memory.suffix_array import MAX_CONTEXT, SuffixArray

START = 0


def all_matches(chunks: Sequence[Sequence[int]], before: Sequence[int]) -> list[tuple[int, int]]:
    """(match length, next token) of every position that shares its last token."""
    found = []
    for chunk in chunks:
        for at in range(len(chunk) - 1):
            length = 0
            while length < min(MAX_CONTEXT, len(before), at + 1) and chunk[at - length] == before[-1 - length]:
                length += 1
            if length:
                found.append((length, chunk[at + 1]))
    return found


@pytest.mark.parametrize("seed", range(6))
def test_candidates_are_the_longest_matches(seed: int) -> None:
    rng = random.Random(seed)
    chunks = [[START, *(rng.randint(1, 3) for _ in range(rng.randint(0, 40)))] for _ in range(12)]
    chunks += [[START, *[1, 2] * 60]]  # contexts longer than MAX_CONTEXT
    index = SuffixArray(chunks)
    assert len(index) == sum(len(chunk) - 1 for chunk in chunks)
    for _ in range(40):
        before = rng.choice([[rng.randint(1, 3) for _ in range(9)], [1, 2] * 50, [START, 1, 2, rng.randint(1, 4)]])
        expected = all_matches(chunks, before)
        found = index.look_up(before, 10_000)
        if not expected:
            assert found is None
            continue
        assert found is not None
        pairs = list(zip(found.lengths.tolist(), found.next_tokens.tolist(), strict=True))
        assert Counter(pairs) == Counter(expected)
        longest = max(expected)[0]
        assert found.count == sum(length == longest for length, _ in expected)
        few = index.look_up(before, 8)
        assert few is not None and few.count == found.count
        assert few.lengths.tolist() == sorted((length for length, _ in expected), reverse=True)[:8]


def test_a_length_with_too_many_positions_is_taken_at_equal_distances() -> None:
    chunks = [[START, 7, token] for token in range(100, 200)]
    found = SuffixArray(chunks).look_up([START, 7], 10)
    assert found is not None
    assert found.next_tokens.tolist() == list(range(100, 200, 10))
    assert found.count == 100


def test_an_empty_index_finds_nothing() -> None:
    for chunks in ([], [[START]]):
        assert SuffixArray(chunks).look_up([START, 1], 4) is None
