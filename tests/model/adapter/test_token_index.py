"""The token index: the longest match in a set of chunks, added to and removed from exactly."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pytest

from c2l_lsp.errors import StateError
from c2l_lsp.model.adapter import token_index
from c2l_lsp.model.adapter.token_index import BOUNDARY, TokenCandidates, TokenIndex
from c2l_lsp.model.runtime import kernel
from c2l_lsp.model.runtime.kernel import MAX_CONTEXT, TOKEN_CANDIDATES
from tests.support.linear import assert_linear, seconds

START = 0
Chunks = dict[bytes, list[int]]
needs_kernel = pytest.mark.skipif(not kernel.is_available(), reason="the kernel is not built")


def name(number: int) -> bytes:
    return number.to_bytes(16, "big")


def random_chunks(rng: random.Random, count: int, vocabulary: int, first: int = 0) -> Chunks:
    """Chunks of random lengths; every tenth one repeats another's beginning, so that there are long matches."""
    chunks: Chunks = {}
    for number in range(first, first + count):
        tokens = [rng.randrange(1, vocabulary) for _ in range(rng.randrange(0, 150))]
        if number % 10 == 9:
            tokens = [*chunks[name(number - 1)][1:], *tokens]
        chunks[name(number)] = [START, *tokens]
    return chunks


def matches(chunks: Mapping[bytes, Sequence[int]], before: Sequence[int]) -> list[tuple[int, int]]:
    """(match length, next token) of every position with a match, by comparing them all."""
    found = []
    for tokens in chunks.values():
        for at in range(len(tokens) - 1):
            length = 0
            while length < min(at + 1, len(before), MAX_CONTEXT) and tokens[at - length] == before[-1 - length]:
                length += 1
            if length:
                found.append((length, tokens[at + 1]))
    return sorted(found, key=lambda pair: -pair[0])


def contents(found: TokenCandidates) -> tuple[list[float], list[int], int, int]:
    return found.lengths.tolist(), found.next_tokens.tolist(), found.longest, found.count


def queries(rng: random.Random, chunks: Chunks, vocabulary: int, count: int) -> list[list[int]]:
    made = []
    for _ in range(count):
        tokens = rng.choice(list(chunks.values()))
        before = [rng.randrange(vocabulary) for _ in range(rng.randrange(0, 80))]
        made.append([*before, *tokens[: rng.randrange(1, len(tokens) + 1)]][-rng.randrange(1, 120) :])
    return made


@pytest.mark.parametrize("vocabulary", [2, 3, 8, 60])
def test_candidates_are_the_longest_matches_of_all_positions(vocabulary: int):
    rng = random.Random(vocabulary)
    chunks = random_chunks(rng, 40, vocabulary)
    index = TokenIndex().updated(chunks)
    for before in queries(rng, chunks, vocabulary, 100):
        wanted, found = matches(chunks, before), index.find(before)
        assert found.longest == (wanted[0][0] if wanted else 0)
        assert found.count == sum(length == found.longest for length, _ in wanted)
        assert found.lengths.tolist() == [float(length) for length, _ in wanted[:TOKEN_CANDIDATES]]
        last = found.lengths[-1] if len(found.lengths) else 0
        for length in {length for length, _ in wanted if length > last}:  # of the last length some may be left out
            expected = sorted(token for other, token in wanted if other == length)
            assert sorted(found.next_tokens[found.lengths == length].tolist()) == expected


@pytest.mark.parametrize("vocabulary", [2, 8, 60])
def test_any_order_of_updates_gives_the_same_answers(vocabulary: int):
    rng = random.Random(vocabulary)
    chunks, others = random_chunks(rng, 40, vocabulary), random_chunks(rng, 10, vocabulary, first=1000)
    whole, grown = TokenIndex().updated(chunks), TokenIndex().updated(others)
    items = list(chunks.items())
    rng.shuffle(items)
    for start in range(0, len(items), 7):
        grown = grown.updated(dict(items[start : start + 7]), [name(1000 + start // 7)])
    grown = grown.updated({}, others)
    assert len(grown) == len(whole) and grown.digest == whole.digest
    assert len(grown.ids) == len(whole.ids)  # nothing of a removed chunk is left
    for before in queries(rng, chunks, vocabulary, 100):
        assert contents(grown.find(before)) == contents(whole.find(before))


@needs_kernel
@pytest.mark.parametrize("vocabulary", [2, 8, 60])
def test_kernel_and_numpy_agree(vocabulary: int, monkeypatch: pytest.MonkeyPatch):
    rng = random.Random(vocabulary)
    chunks = random_chunks(rng, 30, vocabulary)
    compiled = TokenIndex().updated(dict(list(chunks.items())[:20])).updated(chunks)
    asked = queries(rng, chunks, vocabulary, 60)
    answers = [contents(compiled.find(before)) for before in asked]
    monkeypatch.setattr(kernel, "is_available", lambda: False)
    plain = TokenIndex().updated(dict(list(chunks.items())[:20])).updated(chunks)
    assert plain.order.tolist() == compiled.order.tolist()
    assert [contents(plain.find(before)) for before in asked] == answers


def test_a_match_ends_at_the_boundary_of_its_chunk():
    index = TokenIndex().updated({name(1): [START, 5, 6], name(2): [START, 6, 7]})
    found = index.find([5, 6, START, 6])
    assert contents(found) == ([2.0], [7], 2, 1)  # the chunk before is not part of the text
    assert index.find([9]).longest == 0
    assert TokenIndex().find([1, 2]).longest == 0


@pytest.mark.parametrize("compiled", [pytest.param(True, marks=needs_kernel), False])
def test_number_that_is_no_token_ends_the_context(compiled: bool):
    """Such a number must not match the boundary of a chunk: what stands before it is no text of the chunk."""
    index = TokenIndex().updated({name(1): [START, 5, 6], name(2): [START, 5, 7]})
    find = index.find if compiled else index._find
    for other in (BOUNDARY, -2, -(2**31)):
        assert contents(find([5, other, START, 5])) == ([2.0, 2.0], [6, 7], 2, 2)
        assert find([5, other]).longest == 0


def test_of_many_equal_matches_some_at_equal_distances_are_taken():
    index = TokenIndex().updated({name(n): [START, 5, 100 + n] for n in range(1000)})
    found = index.find([START, 5])
    assert (found.longest, found.count, len(found.lengths)) == (2, 1000, TOKEN_CANDIDATES)
    tokens = found.next_tokens.tolist()
    assert tokens == sorted(tokens) and tokens[0] < 150 and tokens[-1] > 1000


def test_equal_chunks_count_once_and_unknown_ones_are_not_removed():
    index = TokenIndex().updated({name(1): [START, 5, 6]})
    assert index.updated({name(1): [START, 5, 6]}, [name(7)]) is index
    assert len(index.updated({}, [name(1)])) == 0


HOSTILE: dict[str, Callable[[int], list[int]]] = {
    "one token": lambda n: [5] * n,
    "two tokens": lambda n: [5, 6] * (n // 2),
    "rising": lambda n: list(range(1, n + 1)),
    "falling": lambda n: list(range(n, 0, -1)),
    "organ pipe": lambda n: [*range(1, n // 2), *range(n // 2, 0, -1)],
}


@needs_kernel
@pytest.mark.parametrize("kind", HOSTILE)
def test_no_text_sorts_slowly(kind: str):
    def prepare(size: int) -> Callable[[], object]:
        tokens = np.array([START, *HOSTILE[kind](size)], np.int32)
        return lambda: TokenIndex().updated({name(1): tokens})

    assert_linear(prepare, 20_000)


@needs_kernel
def test_look_up_takes_less_than_a_tenth_of_a_millisecond():
    rng = np.random.default_rng(0)
    chunks = {name(n): np.append(START, rng.zipf(1.3, 500) % 16_000).astype(np.int32) for n in range(1000)}
    index = TokenIndex().updated(chunks)
    asked = [chunks[name(int(n))][: int(n) % 400 + 2].tolist() for n in rng.integers(0, 1000, 500)]
    assert seconds(lambda: [index.find(before) for before in asked]) / len(asked) < 1e-4  # 0.02 ms measured
    assert (index.ids.nbytes + index.order.nbytes) / len(index) < 12


# --- storage ----------------------------------------------------------------------------------------------------------


def test_arrays_give_the_same_index():
    chunks = random_chunks(random.Random(1), 20, 50)
    index = TokenIndex().updated(chunks)
    again = TokenIndex.from_arrays(index.to_arrays(), vocabulary=50)
    assert again.digest == index.digest and again.chunks == index.chunks
    assert contents(again.find([3, 4])) == contents(index.find([3, 4]))
    assert len(again.updated({}, list(chunks))) == 0
    assert len(TokenIndex.from_arrays(TokenIndex().to_arrays(), vocabulary=50)) == 0


DAMAGE: dict[str, Callable[[dict[str, np.ndarray]], object]] = {
    "token beyond the vocabulary": lambda a: a["ids"].__setitem__(2, 50),
    "token below the boundary": lambda a: a["ids"].__setitem__(2, -2),
    "a boundary less": lambda a: a["ids"].__setitem__(int(a["starts"][3]), 1),
    "position outside": lambda a: a["order"].__setitem__(0, len(a["ids"])),
    "position below zero": lambda a: a["order"].__setitem__(0, -1),
    "position twice": lambda a: a["order"].__setitem__(0, a["order"][1]),
    "position missing": lambda a: a.__setitem__("order", a["order"][1:].copy()),
    "chunk moved": lambda a: a["starts"].__setitem__(1, 1),
    "name twice": lambda a: a["names"].__setitem__(0, a["names"][1]),
    "another type": lambda a: a.__setitem__("ids", a["ids"].astype(np.int64)),
    "another shape": lambda a: a.__setitem__("names", a["names"][:, :8].copy()),
    "an array missing": lambda a: a.pop("starts"),
    "all ids missing": lambda a: a.__setitem__("ids", a["ids"][:0]),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_damaged_arrays_are_refused(kind: str):
    index = TokenIndex().updated(random_chunks(random.Random(1), 20, 50))
    arrays = {key: array.copy() for key, array in index.to_arrays().items()}
    DAMAGE[kind](arrays)
    with pytest.raises(StateError):
        TokenIndex.from_arrays(arrays, vocabulary=50)


def test_kernel_refuses_arrays_that_it_could_read_beyond():
    ids = np.array([BOUNDARY, START, 5], np.int32)
    for positions in ([2], [-1], [7]):
        with pytest.raises(ValueError, match="outside"):
            kernel.sort_positions(ids, np.array(positions, np.int32))
    with pytest.raises(ValueError, match="boundary"):
        kernel.sort_positions(ids[1:], np.array([0], np.int32))
    with pytest.raises(ValueError, match="int32"):
        kernel.sort_positions(ids.astype(np.int64), np.array([1], np.int32))


def test_prefix_doubling_orders_as_documented():
    chunks = random_chunks(random.Random(2), 12, 3)
    ids = TokenIndex().updated(chunks).ids
    positions = token_index._positions(ids, 0)

    def key(position: int) -> tuple[list[int], int, int]:
        return token_index._reversed_context(ids, position), int(ids[position + 1]), position

    assert token_index._sorted_positions(ids, positions).tolist() == sorted(positions.tolist(), key=key)
