"""Finetuning on request: one step a slice on a copy, published only if it helps; validation of LoRA pairs."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from c2l_lsp.engine import wire
from c2l_lsp.engine.adaptation import finetune
from c2l_lsp.engine.adaptation.validation import Validator
from c2l_lsp.engine.engine import FINETUNING_PAUSE_S
from c2l_lsp.engine.session import Session
from c2l_lsp.errors import AdapterError, RequestCancelled
from c2l_lsp.model.adapter.lora import Adapter, AdapterSlot
from c2l_lsp.model.runtime.lora_pair import LoraPair
from tests.support.engine_loop import run_until


def workspace(session: Session, folder: Path):
    return session.engine.workspace(str(folder.resolve()))


def run(generator):
    """Return the value of a generator, and its number of slices."""
    slices = 0
    while True:
        try:
            next(generator)
            slices += 1
        except StopIteration as stop:
            return stop.value, slices


def request(folder: Path) -> wire.Complete:
    return wire.Complete(
        folder=str(folder.resolve()), path="a.py", language="python", prefix="def f(", suffix="", max_new_tokens=2,
        max_latency_ms=60000,
    )  # fmt: skip


@pytest.fixture
def validator(tiny, sources):
    made = Validator(tiny, AdapterSlot(tiny))
    for n in range(3):
        made.add(bytes([n]), sources[n])
    return made


def pairs_of(tiny, factor: float, seed: int = 3) -> Adapter:
    dice = torch.Generator().manual_seed(seed)
    name = "model.layers.1.mlp.down_proj"
    pair = LoraPair(torch.randn(4, 128, generator=dice), torch.randn(64, 4, generator=dice), factor)
    return Adapter(tiny.digest, "sgd", pairs={name: pair})


def test_harmful_pairs_are_rejected_and_helpful_ones_accepted(tiny, validator):
    digests = [bytes([n]) for n in range(3)]
    bare, slices = run(validator.loss(None, digests))
    assert slices == 3

    def losses(adapter: Adapter) -> list[float]:
        return [run(validator.loss(adapter.scaled(s), digests))[0] for s in (1.0, 0.7, 0.4, 0.2)]

    # some random directions are harmful at every strength, some are helpful
    tried = [pairs_of(tiny, factor, seed) for seed in range(40) for factor in (0.1, -0.1)]
    harmful = next(adapter for adapter in tried if min(losses(adapter)) > bare)
    helpful = next(adapter for adapter in tried if losses(adapter)[0] < bare)
    verdict = validator.validate(harmful, digests)
    assert verdict.strength == 0.0 and "worse than the base model" in verdict.reason and verdict.tokens > 100
    assert validator.validate(helpful, digests).strength > 0


def test_pairs_with_nan_are_rejected(tiny, validator):
    broken = pairs_of(tiny, float("nan"))
    verdict = validator.validate(broken, [bytes([n]) for n in range(3)])
    assert verdict.strength == 0.0


def test_validation_leaves_no_hooks_in_the_model(tiny, validator, sources):
    ids = torch.tensor([tiny.encode(sources[0])[:50]])
    before = tiny.hidden(ids)
    generator = validator.validate_in_slices(pairs_of(tiny, 3.0), [bytes([n]) for n in range(3)])
    for _ in range(6):
        next(generator)
        assert torch.equal(tiny.hidden(ids), before)


def test_chunks_are_embedded_by_the_base_model_after_an_adapted_completion(session, folder):
    session.open(folder)
    adapting = workspace(session, folder)
    adapting.adapters.set_finetuned(finetune.FinetuneResult(pairs_of(session.engine.model, 5.0).pairs, "live"))
    adapting._make_live()
    session.complete(request(folder))
    assert session.engine._slot.pairs
    session.engine.idle_step()
    assert not session.engine._slot.pairs


@pytest.mark.parametrize(("with_pairs", "stays"), [(1.9, True), (2.0, False), (2.5, False), (float("nan"), False)])
def test_pairs_are_dropped_once_they_stop_helping(
    accept_every_adapter, session, folder, monkeypatch, with_pairs, stays
):
    session.open(folder)
    adapting = workspace(session, folder)
    pairs = pairs_of(session.engine.model, 0.01).pairs
    adapting.adapters.set_finetuned(finetune.FinetuneResult(pairs, "live", 0.5))
    asked = []

    def loss(self, adapter, digests):
        asked.append(adapter)
        yield
        return with_pairs if adapter.pairs else 2.0

    monkeypatch.setattr(Validator, "loss", loss)
    for number in range(4):
        with (folder / "pkg" / f"m{number}.py").open("a") as file:
            file.write("\n\n" + "\n".join(f"def added_{n}(value):\n    return value * {n}\n" for n in range(30)))
    adapting.regenerate()
    run_until(session, lambda: len(asked) == 2)  # the token index may go live as a generation of its own before
    session.run_until_idle(str(folder.resolve()))
    assert [set(adapter.pairs) for adapter in asked] == [set(), set(pairs)]
    assert bool(adapting.adapters.finetuned.pairs) == bool(adapting.live.adapter.pairs) == stays
    assert adapting.info().deep == "live" if stays else adapting.info().deep.startswith("dropped: by now it is")


def test_training_thread_is_blocked_between_steps():
    seen = []

    def work(pause):
        for n in range(3):
            if pause():
                raise RequestCancelled("stopped")
            seen.append(n)
        return Adapter("b", "k")

    loop = finetune.FinetuneLoop(work)
    time.sleep(0.05)
    assert seen == []
    assert not loop.step()
    time.sleep(0.05)
    assert seen == []
    assert [loop.step() for _ in range(3)] == [False, False, True]
    assert seen == [0, 1, 2]
    assert loop.adapter.kind == "k"

    stopped = finetune.FinetuneLoop(work)
    stopped.step()
    stopped.stop()
    assert stopped.done
    assert seen == [0, 1, 2]

    def failing(pause):
        raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError, match="out of memory"):
        finetune.FinetuneLoop(failing).step()


def test_finetuned_adapter_helps_on_held_out_files_and_survives_a_restart(settings, folder, monkeypatch):
    monkeypatch.setattr(finetune, "RATE", 3e-3)  # 40 steps lower the loss by 0.07; a rate of 1e-2 depends on the text
    with Session(settings) as session:
        session.open(folder)
        adapting = workspace(session, folder)
        adapting.adapters.validation = replace(
            adapting.adapters.validation, knn_strength=0.0
        )  # the kNN memory of random weights is better than 40 steps
        generation = adapting.info().generation
        adapting.finetune(steps=40)
        info = session.run_until_idle(str(folder.resolve()))
        assert info.deep.startswith("live: -"), info.deep
        assert info.generation == generation + 1
        assert [e.trigger for e in session.events if isinstance(e, wire.AdapterChanged)][-1] == "deep"
        live = adapting.live
        assert live.adapter.pairs
        assert live.adapter.final_map is not None  # the generated final map is still applied
        assert live.kv_key
        digest = live.adapter.digest
        assert not session.engine.model.lm.get_submodule("model.layers.0.mlp.down_proj").weight.requires_grad
    with Session(settings) as again:
        assert again.open(folder).deep.startswith("live")
        adapting = workspace(again, folder)
        assert adapting.live.adapter.digest == digest
        adapting.reset()
        assert again.run_until_idle(str(folder.resolve())).deep == ""
        assert not adapting.live.adapter.pairs


def test_finetuned_adapter_that_does_not_help_is_dropped(session, folder, monkeypatch):
    session.open(folder)
    adapting = workspace(session, folder)
    digest = adapting.live.adapter.digest
    monkeypatch.setattr(finetune, "fit_lora", lambda model, texts, **_: pairs_of(model, 1.0).scaled(0.0))
    adapting.finetune(steps=1)
    info = session.run_until_idle(str(folder.resolve()))
    assert info.deep.startswith("dropped: on held-out files")
    assert adapting.live.adapter.digest == digest
    monkeypatch.setattr(finetune, "fit_lora", lambda model, texts, **_: pairs_of(model, 1e6))
    adapting.finetune(steps=1)
    assert "norm" in session.run_until_idle(str(folder.resolve())).deep


def test_training_pauses_while_completions_are_requested(session, folder):
    session.open(folder)
    adapting = workspace(session, folder)
    adapting.finetune(steps=50)
    while not adapting.info().deep.startswith("training"):
        session.engine.idle_step()
    asked = time.monotonic()
    session.complete(request(folder))
    now = time.monotonic()
    due = adapting.due_in(now)
    assert FINETUNING_PAUSE_S - (now - asked) <= due <= FINETUNING_PAUSE_S


def test_edit_precedes_a_training_step_and_cancel_ends_training(session, folder):
    session.open(folder)
    adapting = workspace(session, folder)
    adapting.finetune(steps=5000)
    while not adapting.info().deep.startswith("training"):
        session.engine.idle_step()
    (folder / "pkg" / "m0.py").write_text("def changed():\n    return 1\n", encoding="utf-8")
    deadline = time.monotonic() + 20
    while adapting.info().generation < 2:
        assert time.monotonic() < deadline
        session.engine.idle_step()
    assert adapting.info().deep.startswith("training")
    adapting.cancel_finetuning()
    assert adapting.info().deep == ""
    assert not adapting.pending or session.run_until_idle(str(folder.resolve()))


def test_finetuning_needs_a_state_and_enough_files(session, tmp_path):
    small = tmp_path / "small"
    small.mkdir()
    (small / "a.py").write_text("def hello(name):\n    return 'hello ' + name\n" * 5)
    session.engine.open_folder(wire.OpenFolder(folder=str(small), settings=session.settings))
    with pytest.raises(AdapterError, match="Nothing is learned"):
        workspace(session, small).finetune()
    session.run_until_idle(str(small.resolve()))
    workspace(session, small).finetune()
    assert "hold some out" in session.run_until_idle(str(small.resolve())).deep


def test_private_copy_has_no_hooks_and_checks_free_memory(tiny, monkeypatch):
    slot = AdapterSlot(tiny)
    slot.activate(pairs_of(tiny, 5.0))
    made = finetune.private_copy(tiny)
    slot.activate(None)
    ids = torch.tensor([[1, 2, 3]])
    torch.testing.assert_close(made.hidden(ids), tiny.hidden(ids))
    assert not any(module._forward_hooks for module in made.lm.modules())

    class Full:
        available = 1

    monkeypatch.setattr(finetune.psutil, "virtual_memory", lambda: Full)
    with pytest.raises(AdapterError, match="too little memory"):
        finetune.private_copy(tiny)


def test_saved_pairs_are_restored_from_tensors(tiny):
    pairs = pairs_of(tiny, 2.0).pairs
    saved = {"P": torch.ones(1), **finetune.to_tensors(finetune.FinetuneResult(pairs, "live", knn_strength=0.4))}
    rest, result = finetune.split(saved)
    found = result.pairs
    assert (list(rest), result.knn_strength) == (["P"], 0.4)
    assert (
        finetune.split({"P": torch.ones(1), **finetune.to_tensors(finetune.FinetuneResult())})[1]
        == finetune.FinetuneResult()
    )
    for name, pair in pairs.items():
        assert (found[name].scale, found[name].A is pair.A) == (pair.scale, True)
