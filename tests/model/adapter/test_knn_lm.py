"""kNN memory: the datastore is an exact multiset, the search finds the right neighbours, the mixture is the formula."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from c2l_lab.benchmarks.adapters import adapter_cache

from c2l_lsp.engine.completion.decode import Decoder
from c2l_lsp.errors import AdapterError
from c2l_lsp.model.adapter import knn_lm
from c2l_lsp.model.adapter.key_index import KeyIndex
from c2l_lsp.model.adapter.knn_lm import (
    NEIGHBOURS,
    KnnMemory,
    datastore_entries,
    suffixes,
)
from c2l_lsp.model.adapter.lora import Adapter, AdapterSlot
from c2l_lsp.model.adapter.mixture import MixtureGate
from c2l_lsp.model.adapter.token_index import TokenIndex
from c2l_lsp.model.hypernet.gradient_memory import GradientMemory
from c2l_lsp.model.hypernet.prior import estimate
from c2l_lsp.model.hypernet.protocol import StateChange
from c2l_lsp.model.runtime import kernel
from c2l_lsp.model.runtime.kernel import MAX_CONTEXT, MAX_MATCH
from tests.support.gates import ALWAYS, constant_gate, random_gate

D = 4


def entries(*ids: int, seed: int = 0) -> dict[str, torch.Tensor]:
    hidden = torch.randn(len(ids) - 1, D, generator=torch.Generator().manual_seed(seed))
    return datastore_entries(torch.eye(D), hidden, ids)


def memory_of(*chunks: dict[str, torch.Tensor], gate: MixtureGate = ALWAYS) -> KnnMemory:
    return KnnMemory(KeyIndex.empty(D).updated(chunks), torch.eye(D), gate)


def key(chunk: dict[str, torch.Tensor], at: int) -> np.ndarray:
    return chunk["keys"][at].numpy().astype(np.float32) / 127


def test_candidates_share_the_last_token_and_matches_end_at_the_chunk_boundary() -> None:
    a, b = entries(1, 2, 3, 4), entries(9, 3, 5, seed=1)
    made = memory_of(a, b)
    found = made.search(key(a, 2), [7, 2, 3])
    assert found is not None
    assert dict(zip(found.next_tokens.tolist(), found.match_lengths.tolist(), strict=True)) == {4: 2.0, 5: 1.0}
    assert found.cosines[found.next_tokens.tolist().index(4)] == pytest.approx(1, abs=0.02)
    assert made.search(key(a, 0), [4]) is None  # the last token of a chunk has no next token
    assert made.search(key(a, 0), [8]) is None
    deep = memory_of(entries(*range(1, 30))).search(key(entries(*range(1, 30)), 20), list(range(1, 22)))
    assert deep is not None and deep.match_lengths.tolist() == [MAX_MATCH]
    beyond = made.search(key(a, 0), [3, 4, 1])  # the chunk before it in the datastore is not its context
    assert beyond is not None and beyond.match_lengths.tolist() == [1.0]


def test_nearest_neighbours_vote_and_all_candidates_are_counted() -> None:
    many = [entries(1, 2, 10 + n, seed=n) for n in range(NEIGHBOURS + 8)]
    made = memory_of(*many)
    found = made.search(key(many[3], 1), [1, 2])
    assert found is not None
    assert (len(found.next_tokens), found.count) == (NEIGHBOURS, NEIGHBOURS + 8)
    assert 13 in found.next_tokens


def test_frequent_token_compares_at_most_the_maximum_of_candidates(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(knn_lm, "_MAX_CANDIDATES", 50)
    made = memory_of(*(entries(1, 2, 10 + n, seed=n) for n in range(120)))
    compared: list[int] = []

    class Counted(np.ndarray):
        def __matmul__(self, other: object) -> object:
            compared.append(len(self))
            return np.asarray(self) @ other

    made.__dict__["_keyed"] = replace(made._keyed, keys=made._keyed.keys.view(Counted))
    found = made.search(key(entries(1, 2, 10), 1), [1, 2])
    assert found is not None
    assert (found.count, compared) == (120, [40])  # every third of 120: at most 50


def test_mixture_equals_the_formula() -> None:
    gate = constant_gate(-0.5, 0.3, temperature=0.2, key_length_weight=0.5)
    a, b, c = entries(1, 2, 3), entries(1, 2, 4, seed=1), entries(5, 2, 3, seed=2)
    made = memory_of(a, b, c, gate=gate)
    tokens = TokenIndex().updated({bytes([n]) * 16: ids for n, ids in enumerate(([1, 2, 6], [9, 2, 7]))})
    hidden = torch.randn(1, D, generator=torch.Generator().manual_seed(7))
    logits = torch.randn(1, 12, generator=torch.Generator().manual_seed(8))
    p = torch.softmax(logits[0], 0)
    unit = torch.nn.functional.normalize(hidden[0], dim=0)
    chunks = ((a, 3, 2), (b, 4, 2), (c, 3, 1))
    scores = torch.tensor([float(one["keys"][1].float() @ unit) / 127 / 0.2 + 0.5 * run for one, _, run in chunks])
    r_k = torch.zeros(12).index_add(0, torch.tensor([y for _, y, _ in chunks]), torch.softmax(scores, 0))
    r_t = torch.zeros(12)
    r_t[[6, 7]] = torch.softmax(torch.tensor([0.5 * 2, 0.5 * 1]), 0)  # matches of two tokens and of one
    both = math.exp(-0.5) + math.exp(0.3)

    def expected(w_t: float, w_k: float, strength: float) -> torch.Tensor:
        return (1 - strength * (w_t + w_k)) * p + strength * (w_t * r_t + w_k * r_k)

    def mixed(memory: KnnMemory) -> torch.Tensor:
        return torch.softmax(memory.interpolate(hidden, logits, [[1, 2]])[0], 0)

    w_k = math.exp(0.3) / (1 + math.exp(0.3))
    w_t = math.exp(-0.5) / (1 + math.exp(-0.5))
    whole = made.with_tokens(tokens)
    close = partial(torch.testing.assert_close, rtol=1e-4, atol=1e-6)
    close(mixed(made), expected(0, w_k, 1))  # an absent tier has weight 0
    close(mixed(KnnMemory.without_keys(D, gate, tokens)), expected(w_t, 0, 1))
    close(mixed(whole), expected(math.exp(-0.5) / (1 + both), math.exp(0.3) / (1 + both), 1))
    close(mixed(whole.scaled(0.5)), expected(math.exp(-0.5) / (1 + both), math.exp(0.3) / (1 + both), 0.5))
    factor = 0.95 * (1 + both) / both  # at most MAX_WEIGHT
    close(mixed(whole.scaled(50.0)), expected(math.exp(-0.5) / (1 + both), math.exp(0.3) / (1 + both), factor))
    assert torch.equal(whole.scaled(0.0).interpolate(hidden, logits, [[1, 2]]), logits)
    assert torch.equal(whole.interpolate(hidden, logits, [[1, 11]]), logits)  # this token is nowhere
    ((weight, probability),) = whole.target_votes(hidden, logits, [[1, 2]], [6])
    assert weight == pytest.approx(both / (1 + both))
    assert probability == pytest.approx(math.exp(-0.5) * float(r_t[6]) / both, rel=1e-4)


@pytest.mark.skipif(not kernel.is_available(), reason="the kernel was not built: no C compiler at installation")
@pytest.mark.parametrize("lanes", [4, 8])
@pytest.mark.parametrize("width", [16, 64])
def test_kernel_mixes_as_numpy_does(lanes: int, width: int) -> None:
    if not kernel.extension().select_lanes(lanes):
        pytest.skip(f"this processor has no registers of {lanes} numbers")
    dice = torch.Generator().manual_seed(width)
    basis = torch.randn(width, 96, generator=dice)
    chunks = [
        datastore_entries(
            basis, torch.randn(700, 96, generator=dice), [9, *torch.randint(0, spread, (700,), generator=dice).tolist()]
        )
        for spread in (2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 6, 40)  # about 4,600 candidates: every second is compared
    ]
    made = KeyIndex.empty(width).updated(chunks)
    tokens = TokenIndex().updated({bytes([n]) * 16: chunk["ids"].numpy()[1:] for n, chunk in enumerate(chunks[5:])})
    compiled = KnnMemory(made, basis, random_gate(width), 0.8, tokens)
    plain = replace(compiled)
    plain.__dict__["_kernel_mixer"] = None
    hidden, logits = torch.randn(64, 96, generator=dice), 3 * torch.randn(64, 50, generator=dice)
    before = [torch.randint(0, 2 + row, (1 + row % 8,), generator=dice).tolist() for row in range(64)]
    assert max(high - low for low, high in [np.searchsorted(plain._keyed.last, [0, 1])]) > knn_lm._MAX_CANDIDATES
    expected = plain.interpolate(hidden, logits, before)
    got = compiled.interpolate(hidden, logits, before)
    torch.testing.assert_close(got, expected, rtol=5e-4, atol=5e-4)  # the kernel's keys have 16 bits
    assert sum(not torch.equal(a, b) for a, b in zip(got, logits, strict=True)) > 20
    targets = torch.randint(0, 50, (64,), generator=dice).tolist()
    votes = zip(compiled.target_votes(hidden, logits, before, targets), strict=True)
    for (got_vote,), vote in zip(votes, plain.target_votes(hidden, logits, before, targets), strict=True):
        assert got_vote == pytest.approx(vote, abs=2e-3)
    logits[3, 7] = torch.nan
    assert bool(torch.isnan(compiled.interpolate(hidden, logits, before)[3, 7]))
    kernel.extension().select_lanes(8) or kernel.extension().select_lanes(4)


def test_adapter_digest_depends_on_the_memory_and_the_cache_round_trips_it(tiny, tmp_path) -> None:
    basis = torch.randn(8, tiny.d)
    chunk = datastore_entries(basis, torch.randn(2, tiny.d), [1, 2, 3])
    tokens = TokenIndex().updated({b"n" * 16: [1, 2, 3]})
    made = KnnMemory.of(chunk["ids"], chunk["keys"], basis, random_gate(1), tokens=tokens)
    adapter = Adapter(tiny.digest, "memory", torch.eye(tiny.d), knn=made)
    assert adapter.digest != replace(adapter, knn=made.with_tokens(TokenIndex())).digest
    assert adapter.digest != adapter.without_knn().digest != adapter.scaled(1.0, knn_strength=0.5).without_knn()
    assert adapter.scaled(0.5).knn.strength == 0.5
    assert adapter.scaled(0.5, knn_strength=0.0).knn is None
    adapter_cache.save_adapter(adapter.scaled(1.0, knn_strength=0.7), tmp_path / "a.safetensors", 1.5)
    back, seconds = adapter_cache.load_adapter(tmp_path / "a.safetensors", tiny.digest)
    assert (back.digest, seconds) == (adapter.scaled(1.0, knn_strength=0.7).digest, 1.5)
    with pytest.raises(AdapterError, match="width 3"):
        replace(adapter, knn=KnnMemory.of(chunk["ids"], chunk["keys"], torch.randn(8, 3), ALWAYS)).check(tiny)


@pytest.fixture
def memory(tiny, sources) -> GradientMemory:
    from c2l_lsp.model.hypernet.output_gradients import output_gradients
    from c2l_lsp.model.hypernet.prior import Curvature

    seen = Curvature.zeros(tiny.d)
    found = output_gradients(tiny, [sources[0][:4000]])
    seen.add(found.e, found.h)
    return GradientMemory(tiny, estimate(seen), ALWAYS)


def state_of(memory: GradientMemory, *texts: str):
    embeddings = memory.embed([chunk for text in texts for chunk in memory.chunks(text)])
    return memory.update([memory.empty_state()], [StateChange(added=embeddings, first=True)])[0]


SEEN = "def harvest_lantern(copper_meadow, velvet_anchor):\n    return copper_meadow.quarrel(velvet_anchor)\n"


def test_indexed_text_is_completed_and_removed_text_is_not(tiny, memory) -> None:
    state = state_of(memory, SEEN)
    ids = [tiny.start_id, *tiny.encode(SEEN)]
    cut = ids.index(tiny.encode(" velvet")[-1], 4) if tiny.encode(" velvet")[-1] in ids else len(ids) // 2
    slot = AdapterSlot(tiny)

    def completed(adapter: Adapter | None, draft: int = 0) -> list[int]:
        slot.activate(adapter)
        decoder = Decoder(tiny, slot, draft=draft)
        stream = decoder.stream(decoder.prefill(ids[:cut]))
        return [next(stream).token for _ in range(6)]

    adapter = memory.generate(state).scaled(0.0, knn_strength=1.0)
    assert completed(adapter) == ids[cut : cut + 6]  # random weights: the completion comes from the kNN memory
    assert completed(adapter, draft=4) == ids[cut : cut + 6]
    assert completed(None) != ids[cut : cut + 6]
    chunk = memory.chunks(SEEN)
    gone = memory.update([state], [StateChange(removed=memory.embed(chunk))])[0]
    assert memory.generate(gone).knn is None


def test_wrong_number_of_keys_is_refused_and_huge_token_ids_need_no_memory() -> None:
    a = entries(1, 2, 3)
    with pytest.raises(AdapterError, match="1 keys for 2 positions"):
        KnnMemory.of(a["ids"], a["keys"][:1], torch.eye(D), ALWAYS).scaled(0.5)
    huge = torch.tensor([-1, 2**31 - 2, -9, 2**31 - 1], dtype=torch.int32)
    wild = KnnMemory.of(huge, a["keys"], torch.eye(D), ALWAYS)
    assert wild.search(key(a, 0), [3]) is None  # no table of the size of the largest id is allocated


def test_suffixes_are_the_last_tokens_up_to_each_position() -> None:
    assert suffixes([1, 2, 3, 4], 1, 3) == [[1, 2], [1, 2, 3]]
    assert [len(one) for one in suffixes(list(range(200)), 198, 200)] == [MAX_CONTEXT, MAX_CONTEXT]
