"""Training on request: one step a slice on a copy, kept only if it wins, and the gate for adapters made of pairs."""

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
    """The value of a generator of slices, and how many there were."""
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
def trial(tiny, sources):
    made = Validator(tiny, AdapterSlot(tiny))
    for n in range(3):
        made.add(bytes([n]), sources[n])
    return made


def pairs_of(tiny, factor: float, seed: int = 3) -> Adapter:
    dice = torch.Generator().manual_seed(seed)
    name = "model.layers.1.mlp.down_proj"
    pair = LoraPair(torch.randn(4, 128, generator=dice), torch.randn(64, 4, generator=dice), factor)
    return Adapter(tiny.digest, "sgd", pairs={name: pair})


def test_pairs_that_harm_are_kept_back_and_those_that_help_are_not(tiny, trial):
    digests = [bytes([n]) for n in range(3)]
    bare, slices = run(trial.loss(None, digests))
    assert slices == 3

    def losses(adapter: Adapter) -> list[float]:
        return [run(trial.loss(adapter.scaled(s), digests))[0] for s in (1.0, 0.7, 0.4, 0.2)]

    # of random directions some harm at every strength and some help
    tried = [pairs_of(tiny, factor, seed) for seed in range(12) for factor in (0.1, -0.1)]
    harmful = next(adapter for adapter in tried if min(losses(adapter)) > bare)
    helpful = next(adapter for adapter in tried if losses(adapter)[0] < bare)
    verdict = trial.validate(harmful, digests)
    assert verdict.strength == 0.0 and "worse than the base model" in verdict.reason and verdict.tokens > 100
    assert trial.validate(helpful, digests).strength > 0


def test_pairs_that_are_no_numbers_are_kept_back(tiny, trial):
    broken = pairs_of(tiny, float("nan"))
    verdict = trial.validate(broken, [bytes([n]) for n in range(3)])
    assert verdict.strength == 0.0


def test_the_trial_leaves_nothing_plugged_in(tiny, trial, sources):
    ids = torch.tensor([tiny.encode(sources[0])[:50]])
    before = tiny.hidden(ids)
    generator = trial.validate_in_slices(pairs_of(tiny, 3.0), [bytes([n]) for n in range(3)])
    for _ in range(6):
        next(generator)
        assert torch.equal(tiny.hidden(ids), before)


def test_files_are_read_by_the_bare_model_whatever_the_last_completion_ran_under(session, folder):
    session.open(folder)
    one = workspace(session, folder)
    one.adapters.set_finetuned(finetune.FinetuneResult(pairs_of(session.engine.model, 5.0).pairs, "live"))
    one._make_live()
    session.complete(request(folder))
    assert session.engine._slot.pairs
    session.engine.idle_step()
    assert not session.engine._slot.pairs


@pytest.mark.parametrize(("with_pairs", "stays"), [(1.9, True), (2.0, False), (2.5, False), (float("nan"), False)])
def test_pairs_stay_only_while_they_win_on_files_as_they_are_now(
    open_gate, session, folder, monkeypatch, with_pairs, stays
):
    session.open(folder)
    one = workspace(session, folder)
    pairs = pairs_of(session.engine.model, 0.01).pairs
    one.adapters.set_finetuned(finetune.FinetuneResult(pairs, "live", 0.5))
    asked = []

    def loss(self, adapter, digests):
        asked.append(adapter)
        yield
        return with_pairs if adapter.pairs else 2.0

    monkeypatch.setattr(Validator, "loss", loss)
    for number in range(4):
        with (folder / "pkg" / f"m{number}.py").open("a") as file:
            file.write("\n\n" + "\n".join(f"def added_{n}(value):\n    return value * {n}\n" for n in range(30)))
    one.regenerate()
    run_until(session, lambda: one.info().generation == 2)
    assert [set(adapter.pairs) for adapter in asked] == [set(), set(pairs)]
    assert bool(one.adapters.finetuned.pairs) == bool(one.live.adapter.pairs) == stays
    assert one.info().deep == "live" if stays else one.info().deep.startswith("dropped: by now it is")


def test_a_stepper_stands_still_between_steps():
    seen = []

    def work(pause):
        for n in range(3):
            if pause():
                raise RequestCancelled("stopped")
            seen.append(n)
        return Adapter("b", "k")

    stepper = finetune.FinetuneLoop(work)
    time.sleep(0.05)
    assert seen == []
    assert not stepper.step()
    time.sleep(0.05)
    assert seen == []
    assert [stepper.step() for _ in range(3)] == [False, False, True]
    assert seen == [0, 1, 2]
    assert stepper.adapter.kind == "k"

    stopped = finetune.FinetuneLoop(work)
    stopped.step()
    stopped.stop()
    assert stopped.done
    assert seen == [0, 1, 2]

    def failing(pause):
        raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError, match="out of memory"):
        finetune.FinetuneLoop(failing).step()


def test_a_deep_adapter_wins_on_held_out_files_and_outlives_a_restart(settings, folder, monkeypatch):
    monkeypatch.setattr(finetune, "RATE", 3e-3)  # with 40 steps it wins by 0.07; at 1e-2 by 12 the text decided
    with Session(settings) as session:
        session.open(folder)
        one = workspace(session, folder)
        one.adapters.validation = replace(
            one.adapters.validation, knn_strength=0.0
        )  # random weights recall better than 40 steps could teach
        generation = one.info().generation
        one.finetune(steps=40)
        info = session.run_until_idle(str(folder.resolve()))
        assert info.deep.startswith("live: -"), info.deep
        assert info.generation == generation + 1
        assert [e.trigger for e in session.events if isinstance(e, wire.AdapterChanged)][-1] == "deep"
        live = one.live
        assert live.adapter.pairs
        assert live.adapter.final_map is not None  # the hypernetwork's map still counts
        assert live.kv_key
        digest = live.adapter.digest
        assert not session.engine.model.lm.get_submodule("model.layers.0.mlp.down_proj").weight.requires_grad
    with Session(settings) as again:
        assert again.open(folder).deep.startswith("live")
        one = workspace(again, folder)
        assert one.live.adapter.digest == digest
        one.reset()
        assert again.run_until_idle(str(folder.resolve())).deep == ""
        assert not one.live.adapter.pairs


def test_one_that_does_not_win_is_dropped(session, folder, monkeypatch):
    session.open(folder)
    one = workspace(session, folder)
    digest = one.live.adapter.digest
    monkeypatch.setattr(finetune, "fit_lora", lambda model, texts, **_: pairs_of(model, 1.0).scaled(0.0))
    one.finetune(steps=1)
    info = session.run_until_idle(str(folder.resolve()))
    assert info.deep.startswith("dropped: on held-out files")
    assert one.live.adapter.digest == digest
    monkeypatch.setattr(finetune, "fit_lora", lambda model, texts, **_: pairs_of(model, 1e6))
    one.finetune(steps=1)
    assert "norm" in session.run_until_idle(str(folder.resolve())).deep


def test_training_stands_still_while_completions_are_asked_for(session, folder):
    session.open(folder)
    one = workspace(session, folder)
    one.finetune(steps=50)
    while not one.info().deep.startswith("training"):
        session.engine.idle_step()
    asked = time.monotonic()
    session.complete(request(folder))
    now = time.monotonic()
    due = one.due_in(now)
    assert FINETUNING_PAUSE_S - (now - asked) <= due <= FINETUNING_PAUSE_S


def test_an_edit_goes_before_a_training_step_and_cancel_ends_it(session, folder):
    session.open(folder)
    one = workspace(session, folder)
    one.finetune(steps=5000)
    while not one.info().deep.startswith("training"):
        session.engine.idle_step()
    (folder / "pkg" / "m0.py").write_text("def changed():\n    return 1\n", encoding="utf-8")
    deadline = time.monotonic() + 20
    while one.info().generation < 2:
        assert time.monotonic() < deadline
        session.engine.idle_step()
    assert one.info().deep.startswith("training")
    one.cancel_finetuning()
    assert one.info().deep == ""
    assert not one.pending or session.run_until_idle(str(folder.resolve()))


def test_a_folder_that_is_not_learned_or_too_small_says_so(session, tmp_path):
    small = tmp_path / "small"
    small.mkdir()
    (small / "a.py").write_text("def hello(name):\n    return 'hello ' + name\n" * 5)
    session.engine.open_folder(wire.OpenFolder(folder=str(small), settings=session.settings))
    with pytest.raises(AdapterError, match="Nothing is learned"):
        workspace(session, small).finetune()
    session.run_until_idle(str(small.resolve()))
    workspace(session, small).finetune()
    assert "hold some out" in session.run_until_idle(str(small.resolve())).deep


def test_a_copy_has_nothing_plugged_in_and_room_is_asked_for(tiny, monkeypatch):
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


def test_kept_tensors_are_split_again(tiny):
    pairs = pairs_of(tiny, 2.0).pairs
    kept = {"P": torch.ones(1), **finetune.to_tensors(finetune.FinetuneResult(pairs, "live", knn_strength=0.4))}
    rest, outcome = finetune.split(kept)
    found = outcome.pairs
    assert (list(rest), outcome.knn_strength) == (["P"], 0.4)
    assert (
        finetune.split({"P": torch.ones(1), **finetune.to_tensors(finetune.FinetuneResult())})[1]
        == finetune.FinetuneResult()
    )
    for name, pair in pairs.items():
        assert (found[name].scale, found[name].A is pair.A) == (pair.scale, True)
