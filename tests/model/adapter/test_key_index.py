"""Key index: a function of the multiset of chunks, however it was reached, and sorted for look-up."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch

from c2l_lsp.errors import StateError
from c2l_lsp.model.adapter.key_index import KeyIndex, check_entries
from c2l_lsp.model.adapter.knn_lm import datastore_entries

D = 4


def entries(*ids: int, seed: int = 0) -> dict[str, torch.Tensor]:
    hidden = torch.randn(len(ids) - 1, D, generator=torch.Generator().manual_seed(seed))
    return datastore_entries(torch.eye(D), hidden, ids)


def same(one: KeyIndex, other: KeyIndex) -> bool:
    arrays = ((one.ids, other.ids), (one.places, other.places), (one.keys, other.keys))
    return all(np.array_equal(a, b) for a, b in arrays) and one.chunks == other.chunks


def test_index_is_a_multiset_independent_of_the_order_of_updates() -> None:
    a, b, c = entries(1, 2, 3), entries(1, 5, 6, 7, seed=1), entries(1, 2, seed=2)
    empty = KeyIndex.empty(D)
    whole = empty.updated([a, b, b, c])
    other = empty.updated([b, c]).updated([a, b, entries(1, 9)]).updated([], [entries(1, 9)])
    assert same(whole, other)
    assert whole.digest == other.digest
    assert same(whole.updated([], [b]), empty.updated([a, b, c]))  # one use of two is left
    assert len(whole) == len(empty.updated([a, b, c]))  # equal chunks are stored once
    assert same(whole.updated([], [a, b, b, c]), empty)
    assert same(whole.updated([], [entries(4, 4)]), whole)  # was never there


@pytest.mark.parametrize("seed", range(20))
def test_any_sequence_of_updates_gives_the_index_of_what_is_left(seed: int) -> None:
    dice = random.Random(seed)
    pool = [entries(1, *(dice.randrange(6) for _ in range(dice.randint(1, 30))), seed=n) for n in range(12)]
    index, left = KeyIndex.empty(D), list[int]()
    for _ in range(12):
        removed = [left.pop(dice.randrange(len(left))) for _ in range(dice.randint(0, len(left)))]
        added = [dice.randrange(len(pool)) for _ in range(dice.randint(0, 5))]
        left += added
        index = index.updated([pool[n] for n in added], [pool[n] for n in removed])
        assert same(index, KeyIndex.empty(D).updated([pool[n] for n in left]))
        assert np.all(np.diff(index.last) >= 0)


def test_each_key_stays_with_its_place() -> None:
    chunks = [entries(1, 2, 3, 2, 5, seed=1), entries(1, 3, 3, 9, seed=2)]
    index = KeyIndex.empty(D).updated(chunks)
    expected = {}
    for chunk in chunks:
        ids = chunk["ids"].tolist()
        for at, key in enumerate(chunk["keys"].tolist(), 1):
            expected[tuple(ids[: at + 2])] = key
    starts = {start for start, _, _ in index.chunks.values()}
    for place, key in zip(index.places.tolist(), index.keys.tolist(), strict=True):
        start = max(at for at in starts if at <= place)
        assert expected.pop(tuple(index.ids[start : place + 2].tolist())) == key
    assert not expected
    ids, keys = index.to_tensors()
    again = KeyIndex.of(ids, keys)
    assert np.array_equal(again.places, index.places) and np.array_equal(again.keys, index.keys)


@pytest.mark.parametrize(
    "change",
    [
        lambda e: e | {"ids": e["ids"].long()},
        lambda e: e | {"ids": e["ids"][:-1]},
        lambda e: e | {"ids": torch.tensor([-1, 1, -1, 3], dtype=torch.int32)},
        lambda e: e | {"ids": torch.tensor([-1, 1, 99, 3], dtype=torch.int32)},
        lambda e: e | {"ids": torch.tensor([0, 1, 2, 3], dtype=torch.int32)},
        lambda e: e | {"ids": torch.zeros(0, dtype=torch.int32), "keys": e["keys"][:0]},
        lambda e: e | {"ids": torch.tensor([-1], dtype=torch.int32), "keys": e["keys"][:0]},
        lambda e: e | {"keys": e["keys"].float()},
        lambda e: e | {"keys": e["keys"][:, :3]},
        lambda e: e | {"keys": e["keys"][0]},
        lambda e: e | {"keys": torch.tensor(1, dtype=torch.int8)},
    ],
)
def test_entries_that_are_not_those_of_one_chunk_are_refused(change) -> None:
    sound = entries(1, 2, 3)
    check_entries(sound, D, 10)
    with pytest.raises(StateError):
        check_entries(change(sound), D, 10)
