"""The kNN memory of a workspace: validated, up to date with the files, restored after a restart."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest
import torch

from c2l_lsp.engine.adaptation import validation
from c2l_lsp.engine.adaptation.validation import Validator
from c2l_lsp.engine.indexing.token_indexer import index_of
from c2l_lsp.engine.session import Session
from c2l_lsp.model.adapter.knn_lm import KnnMemory
from c2l_lsp.model.adapter.lora import Adapter, AdapterSlot
from c2l_lsp.model.hypernet.gradient_memory import GradientMemory
from c2l_lsp.model.hypernet.output_gradients import output_gradients
from c2l_lsp.model.hypernet.prior import Curvature, estimate
from c2l_lsp.model.hypernet.protocol import StateChange
from tests.support.gates import constant_gate


def workspace(session, folder):
    return session.engine.workspace(str(folder.resolve()))


def wait(session, folder, generation: int) -> None:
    """Run until a generation is live."""
    deadline = time.monotonic() + 60
    while workspace(session, folder).info().generation < generation:
        assert time.monotonic() < deadline, workspace(session, folder).info()
        session.engine.idle_step()


def memory_ids(session, folder) -> list[int]:
    return workspace(session, folder).live.adapter.knn.positions.ids.tolist()


@pytest.fixture
def adapter(tiny, sources) -> Adapter:
    """An adapter with the kNN memory of the first files only."""
    seen = Curvature.zeros(tiny.d)
    found = output_gradients(tiny, [sources[0][:4000]])
    seen.add(found.e, found.h)
    memory = GradientMemory(tiny, estimate(seen))
    chunks = [chunk for text in sources[4:12] for chunk in memory.chunks(text)]
    state = memory.update([memory.empty_state()], [StateChange(added=memory.embed(chunks), first=True)])[0]
    return replace(memory.generate(state), final_map=None)


def scrambled(adapter: Adapter) -> Adapter:
    """The same keys with wrong next tokens."""
    memory = adapter.knn
    ids, keys = memory.positions.to_tensors()
    ids = ids.clone()
    inside = (ids >= 0).nonzero()[:, 0]
    ids[inside] = ids[inside.flip(0)]
    return replace(adapter, knn=KnnMemory.of(ids, keys, memory.basis, memory.gate))


def validator_on(tiny, texts) -> tuple[Validator, list[bytes]]:
    validator, digests = Validator(tiny, AdapterSlot(tiny)), [bytes([n]) for n in range(len(texts))]
    for digest, text in zip(digests, texts, strict=True):
        validator.add(digest, text)
    return validator, digests


def test_helpful_memory_is_accepted_and_misleading_memory_rejected(tiny, sources, adapter):
    validator, digests = validator_on(tiny, sources[:3])
    result = validator.validate(adapter, digests)
    assert result.knn_strength > 0 > result.delta and result.rejection == ""
    wrong = scrambled(adapter)
    gate = constant_gate(6.0, 6.0)  # a mixture weight near 1 everywhere
    wrong = replace(wrong, knn=replace(wrong.knn, gate=gate))
    assert validator.validate(wrong, digests).knn_strength == 0.0
    harmful = Adapter(tiny.digest, "memory", 50 * torch.eye(tiny.d).roll(1, 0), knn=adapter.knn)
    result = validator.validate(harmful, digests)
    assert (
        result.strength == 0.0 < result.knn_strength and result.rejection == ""
    )  # the kNN memory can be used without the weights
    result = validator.validate(replace(harmful, knn=wrong.knn), digests)
    assert "worse than the base model" in result.rejection


def test_head_that_repeats_in_every_file_does_not_decide_the_strength(tiny, sources):
    """The memory knows the first 256 tokens by heart, and is wrong at every token after them."""
    head, wrong = tiny.decode(tiny.encode(sources[0])[:250]), "QXZ" * 30
    index = index_of(tiny, [head, wrong])
    plain = Adapter(tiny.digest, "memory").with_tokens(index, tiny.d, constant_gate(6.0, -30.0))
    validator, digests = validator_on(tiny, [head + "\n" + "QZX" * 160])
    assert validator.validate(plain, digests).knn_strength == 0.0
    whole, _ = validator_on(tiny, [head])  # nothing else to score: its second half does
    assert whole.validate(plain, digests).knn_strength > 0


def test_every_held_out_text_is_scored(tiny, sources):
    validator, digests = validator_on(tiny, sources[:8])
    places = validator._knn_places()
    first = {digest: min(rows.start for one, rows in places if one == digest) for digest in digests}
    sizes = {digest: len(validator._hidden[digest][1]) for digest in digests}
    assert first == {digest: min(256, size // 2) for digest, size in sizes.items()}
    assert {digest for digest, _ in places[: len(digests)]} == set(
        digests
    )  # the limit cuts every text, not the last ones


def test_validation_loss_equals_the_loss_of_a_completion(tiny, sources, adapter, monkeypatch):
    monkeypatch.setattr(validation, "_HEAD", 0)  # the loss below is that of whole texts
    validator, digests = validator_on(tiny, sources[:3])
    result = validator.validate(adapter, digests)

    def loss(one: Adapter | None) -> float:
        work = validator.loss(one, digests)
        while True:
            try:
                next(work)
            except StopIteration as end:
                return end.value

    mixed = loss(adapter.scaled(1.0, result.knn_strength))
    assert mixed - loss(None) == pytest.approx(result.delta, abs=2e-3)


def test_memory_follows_the_files_and_survives_a_restart(settings, folder, accept_every_adapter):
    with Session(settings) as session:
        session.open(folder)
        model = session.engine.model
        new = model.encode("velvet_anchor = 'harvest'")
        ids = memory_ids(session, folder)
        assert not any(ids[i : i + len(new)] == new for i in range(len(ids)))
        (folder / "pkg" / "new.py").write_text("velvet_anchor = 'harvest'\n" * 3, encoding="utf-8")
        wait(session, folder, 2)
        ids = memory_ids(session, folder)
        assert any(ids[i : i + len(new)] == new for i in range(len(ids)))
        digest = workspace(session, folder).live.adapter.digest
    with Session(settings) as again:
        again.open(folder)
        assert workspace(again, folder).live.adapter.digest == digest
        (folder / "pkg" / "new.py").unlink()
        wait(again, folder, 3)
        ids = memory_ids(again, folder)
        assert not any(ids[i : i + len(new)] == new for i in range(len(ids)))
