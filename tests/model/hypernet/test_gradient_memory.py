"""Gradient memory: closed form against autograd, exact subtraction, independence of the path, recent memory."""

from __future__ import annotations

import random
from copy import deepcopy

import pytest
import torch

from c2l_lsp.cooperative import drain, timed
from c2l_lsp.model.adapter.lora import AdapterSlot
from c2l_lsp.model.hypernet import output_gradients as gradients
from c2l_lsp.model.hypernet.gradient_memory import GradientMemory, clip_spectrum
from c2l_lsp.model.hypernet.output_gradients import output_gradients
from c2l_lsp.model.hypernet.prior import Curvature, estimate
from c2l_lsp.model.hypernet.protocol import StateChange


@pytest.fixture(scope="module")
def memory(tiny, sources):
    seen = Curvature.zeros(tiny.d)
    for text in sources[:6]:
        found = output_gradients(tiny, [text[:2000]])
        seen.add(found.e, found.h)
    return GradientMemory(tiny, estimate(seen))


@pytest.fixture(scope="module")
def embeddings(memory, sources):
    chunks = [chunk for text in sources[:8] for chunk in memory.chunks(text)]
    return memory.embed(chunks)


def updated(memory, *changes):
    state = memory.empty_state()
    for change in changes:
        (state,) = memory.update([state], [change])
    return state


def distance(a, b) -> float:
    return float((a - b).norm() / b.norm().clamp(min=1e-12))


def test_output_gradients_equal_autograd(tiny, sources):
    ids = [tiny.start_id, *tiny.encode(sources[0][:600])]
    (states,) = drain(tiny.hidden_states_in_slices([ids]))
    hidden = states[:-1].clone().requires_grad_(True)
    loss = torch.nn.functional.cross_entropy(tiny.logits(hidden), torch.tensor(ids[1:]), reduction="sum")
    (gradient,) = torch.autograd.grad(loss, hidden)
    found = output_gradients(tiny, [sources[0][:600]])
    torch.testing.assert_close(found.e, -gradient, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(found.h, hidden.detach(), atol=1e-5, rtol=1e-4)


def test_a_wide_head_is_read_in_steps_that_divide_the_vocabulary(tiny, sources, monkeypatch):
    """With a head of 151,936 rows, all of it for 8 tokens took so long a step that the engine was taken for dead."""
    texts = [source[:900] for source in sources[:3]]
    expected = output_gradients(tiny, texts)
    work = 64 * tiny.head_weight.numel() // 10  # a tenth of the head for 64 tokens
    monkeypatch.setattr(gradients, "_STEP_WORK", work)
    found, seconds = drain(timed(gradients.output_gradients_in_slices(tiny, texts)))
    torch.testing.assert_close(found.e, expected.e, atol=1e-6, rtol=1e-4)
    groups = -(-len(expected.e) // 64)
    assert len(seconds) >= 20 * groups


def test_embedding_of_a_chunk_is_independent_of_its_batch(memory, sources):
    chunks = memory.chunks(sources[3])[:4]
    alone = [memory.embed([chunk])[0] for chunk in chunks]
    together = memory.embed(chunks)
    for one, many in zip(alone, together, strict=True):
        assert float(one["n"]) == float(many["n"])
        for name in ("v", "k"):
            rows = [embedding[name].float() * embedding[f"{name}_scale"] for embedding in (one, many)]
            assert distance(*rows) < 0.02


def test_adapter_of_an_empty_state_changes_nothing(memory):
    assert memory.generate(memory.empty_state()).final_map is None


def test_removal_is_exact(memory, embeddings):
    state = updated(memory, StateChange(added=embeddings, first=True), StateChange(removed=embeddings))
    assert float(state.tensors["S"].abs().max()) < 1e-9
    assert float(state.tensors["n"]) == 0


def test_state_is_independent_of_the_order_of_changes(memory, embeddings):
    rng = random.Random(1)
    state, inside = updated(memory, StateChange(added=embeddings[:5], first=True)), list(range(5))
    for _ in range(200):
        out = [inside.pop(rng.randrange(len(inside)))] if inside and rng.random() < 0.5 else []
        into = [rng.randrange(len(embeddings))]
        inside += into
        change = StateChange(added=[embeddings[i] for i in into], removed=[embeddings[i] for i in out])
        (state,) = memory.update([state], [change])
    rng.shuffle(inside)
    straight = updated(memory, StateChange(added=[embeddings[i] for i in inside], first=True))
    assert distance(state.tensors["S"], straight.tensors["S"]) < 1e-9  # the bar is 1e-3
    assert float(state.tensors["n"]) == pytest.approx(float(straight.tensors["n"]))


def test_batch_update_equals_single_updates(memory, embeddings):
    changes = [
        StateChange(added=embeddings[:3]),
        StateChange(added=embeddings[3:7]),
        StateChange(removed=embeddings[:1]),
    ]
    together = memory.update([memory.empty_state() for _ in changes], changes)
    for state, change in zip(together, changes, strict=True):
        (alone,) = memory.update([memory.empty_state()], [change])
        for name in alone.tensors:
            torch.testing.assert_close(state.tensors[name], alone.tensors[name])


def test_adapter_lowers_the_loss_of_its_own_text(memory, tiny, embeddings, sources):
    state = updated(memory, StateChange(added=embeddings, first=True))
    ids = torch.tensor([[tiny.start_id, *tiny.encode(sources[2][:2000])]])[:, :700]
    slot = AdapterSlot(tiny)

    def loss() -> float:
        logits = slot.logits(tiny.hidden(ids))[0, :-1].float()
        return float(torch.nn.functional.cross_entropy(logits, ids[0, 1:]))

    before = loss()
    slot.activate(memory.generate(state))
    assert loss() < before - 0.01


def test_recent_memory_is_written_decays_and_reverts(memory, embeddings):
    base = updated(memory, StateChange(added=embeddings[:4], first=True))
    assert float(base.tensors["recent"].abs().max()) == 0  # a first snapshot is not a recent event
    (edited,) = memory.update([base], [StateChange(added=embeddings[4:5], removed=embeddings[:1])])
    (reverted,) = memory.update([edited], [StateChange(added=embeddings[:1], removed=embeddings[4:5])])
    assert float(reverted.tensors["recent"].norm()) < 0.06 * float(edited.tensors["recent"].norm())
    (later,) = memory.update([edited], [StateChange()])
    torch.testing.assert_close(later.tensors["recent"], 0.95 * edited.tensors["recent"], rtol=1e-3, atol=1e-9)


def test_quantised_second_moments_are_close_to_exact_ones(memory, tiny, sources):
    """F from int8 factors differs from the exact F by less than 2 %."""
    from c2l_lsp.model.hypernet.output_gradients import output_gradients

    chunks = memory.chunks(sources[0][:6000])
    state = updated(memory, StateChange(added=memory.embed(chunks), first=True))
    found = [output_gradients(tiny, [chunk.text]) for chunk in chunks]
    for name, rows in (("F_e", [f.e for f in found]), ("F_h", [f.h for f in found])):
        exact = sum((one.double().T @ one.double() for one in rows), torch.zeros(tiny.d, tiny.d, dtype=torch.float64))
        assert distance(state.tensors[name], exact) < 0.02
        assert torch.equal(state.tensors[name], state.tensors[name].T)


def test_weight_of_the_repositorys_curvature_grows_with_its_text(memory, embeddings):
    prior = memory.prior
    P, Q = memory._preconditioners(memory.empty_state())
    assert P is prior.P and Q is prior.Q
    few = updated(memory, StateChange(added=embeddings[:1], first=True))
    many = updated(memory, StateChange(added=list(embeddings[:1]) * 200, first=True))
    mine = few.tensors["F_e"] / few.tensors["n"]
    mine = mine + prior.scalars.damping * mine.trace() / prior.R * torch.eye(prior.R)

    def gap(state) -> float:
        return distance(torch.linalg.inv(memory._preconditioners(state)[0].double()), mine)

    assert gap(few) > 2 * gap(many)
    assert gap(many) < 0.5


def test_recent_memory_fades_after_a_large_change(memory, embeddings):
    """After a change of many files the recent memory did harm in measurements."""
    base = updated(memory, StateChange(added=embeddings[:2], first=True))

    def share(count: int) -> float:
        (after,) = memory.update([base], [StateChange(added=embeddings[2:3] * count)])
        still = deepcopy(after)
        still.tensors["recent"].zero_()
        return float((memory.core(after) - memory.core(still)).norm())

    few, many = share(1), share(400)
    assert many < few / 4


def test_clip_bounds_the_spectrum():
    torch.manual_seed(0)
    matrix = torch.randn(20, 20)
    matrix[0] *= 1000
    s = torch.linalg.svdvals(clip_spectrum(matrix, 5.0))
    assert float(s.max()) <= 5.0 * float(torch.linalg.svdvals(matrix).median()) * 1.001
    gentle = torch.eye(20)
    torch.testing.assert_close(clip_spectrum(gentle, 5.0), gentle, atol=1e-5, rtol=1e-5)


def test_wide_model_gets_bases(tiny, sources, monkeypatch):
    from c2l_lsp.model.hypernet import prior

    monkeypatch.setattr(prior, "FULL_RANK_UP_TO", 32)
    monkeypatch.setattr(prior, "BASIS_RANK", 24)
    seen = Curvature.zeros(tiny.d)
    found = output_gradients(tiny, [text[:2000] for text in sources[:6]])
    seen.add(found.e, found.h)
    memory = GradientMemory(tiny, estimate(seen))
    assert memory.prior.R == 24
    read = memory.embed(memory.chunks(sources[1]))
    adapter = memory.generate(updated(memory, StateChange(added=read, first=True)))
    assert adapter.final_map.shape == (tiny.d, tiny.d)
    assert torch.linalg.matrix_rank(adapter.final_map) <= 24


def test_many_embeddings_are_summed_in_cooperative_steps(memory, embeddings):
    """Without steps, thousands of embeddings delayed completions by 16 s."""
    many = [*embeddings] * (4 * 32 // len(embeddings) + 1)
    work = memory.update_in_slices([memory.empty_state()], [StateChange(added=many, first=True)])
    slices = sum(1 for _ in work)
    assert slices >= len(many) // 32
    (whole,) = memory.update([memory.empty_state()], [StateChange(added=many, first=True)])
    assert float(whole.tensors["n"]) == sum(float(embedding["n"]) for embedding in many)


def test_sums_are_independent_of_the_order_and_cancel(memory, embeddings):
    """Each product is exact, so only the rounding of the fp64 sums remains."""
    one, other = (
        updated(memory, StateChange(added=embeddings, first=True)),
        updated(memory, StateChange(added=embeddings[::-1], first=True)),
    )
    assert distance(one.tensors["S"], other.tensors["S"]) < 1e-12
    left = updated(memory, StateChange(added=embeddings, first=True), StateChange(removed=embeddings, first=True))
    assert float(left.tensors["S"].abs().max()) < 1e-12 * float(one.tensors["S"].abs().max())
