"""What a folder's adapter recalls: behind the gate, following the files, and through a restart."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest
import torch

from c2l_lsp.engine.adaptation.validation import Validator
from c2l_lsp.engine.session import Session
from c2l_lsp.model.adapter.knn_lm import KnnMemory
from c2l_lsp.model.adapter.lora import Adapter, AdapterSlot
from c2l_lsp.model.hypernet.gradient_memory import GradientMemory
from c2l_lsp.model.hypernet.output_gradients import output_gradients
from c2l_lsp.model.hypernet.prior import Curvature, estimate
from c2l_lsp.model.hypernet.protocol import StateChange


def workspace(session, folder):
    return session.engine.workspace(str(folder.resolve()))


def wait(session, folder, generation: int) -> None:
    """Work until the folder has come to a generation."""
    deadline = time.monotonic() + 60
    while workspace(session, folder).info().generation < generation:
        assert time.monotonic() < deadline, workspace(session, folder).info()
        session.engine.idle_step()


def recalled(session, folder) -> list[int]:
    return workspace(session, folder).live.adapter.knn.ids.tolist()


@pytest.fixture
def adapter(tiny, sources) -> Adapter:
    """What the first files recall, and nothing else."""
    seen = Curvature.zeros(tiny.d)
    found = output_gradients(tiny, [sources[0][:4000]])
    seen.add(found.e, found.h)
    memory = GradientMemory(tiny, estimate(seen))
    chunks = [chunk for text in sources[4:12] for chunk in memory.chunks(text)]
    state = memory.update([memory.empty_state()], [StateChange(added=memory.embed(chunks), first=True)])[0]
    return replace(memory.generate(state), final_map=None)


def scrambled(adapter: Adapter) -> Adapter:
    """The same keys with tokens that never came next."""
    recall = adapter.knn
    ids = recall.ids.clone()
    inside = (ids >= 0).nonzero()[:, 0]
    ids[inside] = ids[inside.flip(0)]
    return replace(adapter, knn=KnnMemory(ids, recall.keys, recall.basis, recall.gate))


def trial_on(tiny, texts) -> tuple[Validator, list[bytes]]:
    trial, digests = Validator(tiny, AdapterSlot(tiny)), [bytes([n]) for n in range(len(texts))]
    for digest, text in zip(digests, texts, strict=True):
        trial.add(digest, text)
    return trial, digests


def test_what_helps_passes_and_what_misleads_is_kept_back(tiny, sources, adapter):
    trial, digests = trial_on(tiny, sources[:3])
    verdict = trial.validate(adapter, digests)
    assert verdict.knn_strength > 0 > verdict.delta and verdict.rejection == ""
    wrong = scrambled(adapter)
    gate = replace(wrong.knn.gate, bias=6.0)  # believed whatever it says
    wrong = replace(wrong, knn=replace(wrong.knn, gate=gate))
    assert trial.validate(wrong, digests).knn_strength == 0.0
    harmful = Adapter(tiny.digest, "memory", 50 * torch.eye(tiny.d).roll(1, 0), knn=adapter.knn)
    verdict = trial.validate(harmful, digests)
    assert (
        verdict.strength == 0.0 < verdict.knn_strength and verdict.rejection == ""
    )  # one half may live without the other
    verdict = trial.validate(replace(harmful, knn=wrong.knn), digests)
    assert "worse than the base model" in verdict.rejection


def test_the_verdict_is_the_loss_that_a_completion_has(tiny, sources, adapter):
    trial, digests = trial_on(tiny, sources[:3])
    verdict = trial.validate(adapter, digests)

    def loss(one: Adapter | None) -> float:
        work = trial.loss(one, digests)
        while True:
            try:
                next(work)
            except StopIteration as end:
                return end.value

    mixed = loss(adapter.scaled(1.0, verdict.knn_strength))
    assert mixed - loss(None) == pytest.approx(verdict.delta, abs=2e-3)


def test_it_follows_the_files_and_outlives_a_restart(settings, folder, open_gate):
    with Session(settings) as session:
        session.open(folder)
        model = session.engine.model
        new = model.encode("velvet_anchor = 'harvest'")
        ids = recalled(session, folder)
        assert not any(ids[i : i + len(new)] == new for i in range(len(ids)))
        (folder / "pkg" / "new.py").write_text("velvet_anchor = 'harvest'\n" * 3, encoding="utf-8")
        wait(session, folder, 2)
        ids = recalled(session, folder)
        assert any(ids[i : i + len(new)] == new for i in range(len(ids)))
        digest = workspace(session, folder).live.adapter.digest
    with Session(settings) as again:
        again.open(folder)
        assert workspace(again, folder).live.adapter.digest == digest
        (folder / "pkg" / "new.py").unlink()
        wait(again, folder, 3)
        ids = recalled(again, folder)
        assert not any(ids[i : i + len(new)] == new for i in range(len(ids)))
