"""The experiment on the recent memory: commit streams, equality with the product, the start and gradient of a gate."""

from __future__ import annotations

import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from c2l_lab.benchmarks.recency import compare, records, streams
from c2l_lab.benchmarks.recency.constants import Constants, Follower, best_constants
from c2l_lab.benchmarks.recency.experiment import ALONE, BEST, Fitted, replays_of, table
from c2l_lab.benchmarks.recency.gate import RecencyGate, Recipe, train
from c2l_lab.benchmarks.recency.replay import clip_factor, mean_by_repository, next_loss

from c2l_lsp.model.hypernet import prior as priors
from c2l_lsp.model.hypernet.gradient_memory import GradientMemory, clip_spectrum
from c2l_lsp.model.hypernet.output_gradients import output_gradients
from tests.support.training_text import module

torch.set_num_threads(1)
GIT = ("git", "-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "commit.gpgsign=false")
SIZES = streams.Sizes(commits=6, least_commits=3)
RECIPE = Recipe("gate", weighted=True, projected=2, hidden=4, epochs=1, repositories=1)


def run(root: Path, *words: str) -> None:
    subprocess.run([*GIT, *words], cwd=root, check=True, capture_output=True, timeout=30)


@pytest.fixture(scope="module")
def mirror(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One repository of eight commits. The newest adds `newest_name`; `far.py` never changes."""
    folder = tmp_path_factory.mktemp("mirror")
    root = folder / "o+n" / "repo"
    root.mkdir(parents=True)
    run(root, "init", "-q", "-b", "main")
    (root / "LICENSE").write_text((Path(__file__).parents[3] / "LICENSE").read_text("utf-8"), "utf-8")
    (root / "far.py").write_text(module("far", 1), "utf-8")
    for number in range(8):
        text = module("near", number) + ("def newest_name():\n    return 1\n" if number == 7 else "")
        (root / "near.py").write_text(text, "utf-8")
        run(root, "add", "-A")
        run(root, "commit", "-q", "-m", "x")
    return folder


@pytest.fixture(scope="module")
def memory(tiny) -> GradientMemory:
    curvature = priors.Curvature.zeros(tiny.d)
    gradients = output_gradients(tiny, [module("text", number) for number in range(6)])
    curvature.add(gradients.e, gradients.h)
    scalars = priors.PriorScalars(eta_recent=0.07, n0_recent=20.0, fade_recent=500.0)
    return GradientMemory(tiny, priors.estimate(curvature, scalars=scalars))


@pytest.fixture(scope="module")
def record(memory, mirror, tmp_path_factory) -> records.Record:
    folder, lines = tmp_path_factory.mktemp("run"), list[str]()
    (found,) = records.make_records(memory, ["o/n", "no/where"], mirror, folder, SIZES, lines.append)
    assert "no/where: skipped" in lines[-1]
    (again,) = records.make_records(
        memory, ["o/n"], folder, folder, SIZES, lines.append
    )  # the mirror is not read again
    assert [len(b.scored.targets) for b in again.batches] == [len(b.scored.targets) for b in found.batches]
    return found


def test_stream_is_the_last_commits_and_the_last_one_is_only_scored(mirror: Path, memory, record):
    stream = streams.read_stream("o/n", mirror, SIZES)
    assert len(stream) == 7  # of eight commits; the first one has no parent
    assert all(set(snapshot.texts) == {"near.py", "far.py"} for snapshot in stream)
    (hunk,) = [h for h in streams.hunks(stream[-2], stream[-1]) if "newest_name" in h.added]
    assert hunk.before and "newest_name" not in hunk.before
    assert len(record.batches) == len(stream) - 2
    last = record.batches[-1]
    texts = [memory.model.decode(e["ids"][2:].tolist()) for b in record.batches for e in b.change.added]
    assert not any("newest_name" in text for text in texts)  # what is scored is in no batch before
    assert not any("far" in text for text in texts)
    assert "newest" in memory.model.decode(last.scored.targets.tolist())
    assert last.files == 1
    assert last.again == 1.0


def test_replay_equals_the_final_map_of_the_product(memory, record):
    (one,) = replays_of(memory, [record], lambda _: None)
    (state,) = memory.update([memory.empty_state()], [record.first])
    maps = compare.constant_maps(one, Constants(0.95, memory.prior.scalars))
    for batch, step, recent in zip(record.batches, one.steps, maps, strict=True):
        (state,) = memory.update([state], [batch.change])
        C = memory.core(state)
        torch.testing.assert_close(step.mapped + step.hidden @ recent.T, step.hidden + step.hidden @ C.T,
                                   rtol=1e-3, atol=1e-4)  # fmt: skip
        assert float(recent.norm()) > 1e-4


def test_clipping_is_a_product_with_a_factor():
    matrix = torch.randn(6, 6, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(clip_factor(matrix, 1.2) @ matrix, clip_spectrum(matrix, 1.2), rtol=1e-4, atol=1e-5)


def test_untrained_gate_is_the_constants(memory, record):
    (one,) = replays_of(memory, [record], lambda _: None)
    head = memory.model.head_weight.float().clone()
    constants = Constants(0.8, memory.prior.scalars)
    gate = RecencyGate(RECIPE, constants, [one])
    wanted = Follower([one], 0.8, constants.scalars).losses(head, constants.scalars)
    assert gate.losses([one], head) == pytest.approx(wanted, abs=1e-4)
    torch.testing.assert_close(gate.maps(one), compare.constant_maps(one, constants), rtol=1e-3, atol=1e-5)
    loss, away = gate.loss(gate.unroll(one, shifts=True), head)  # the linear form of training is exact at the constants
    assert float(loss.detach()) == pytest.approx(wanted[0], abs=1e-4)
    assert float(away.detach()) == pytest.approx(0, abs=1e-9)


def test_gradients_reach_the_first_batch(memory, record):
    (one,) = replays_of(memory, [record], lambda _: None)
    gate = RecencyGate(RECIPE, Constants(0.8, memory.prior.scalars), [one])
    torch.nn.init.normal_(gate.head.weight)
    unrolled = gate.unroll(one, shifts=True)
    inputs = unrolled.inputs.clone().requires_grad_()
    loss, _ = gate.loss(replace(unrolled, inputs=inputs), memory.model.head_weight.float().clone())
    loss.backward()
    assert all(float(row.norm()) > 0 for row in inputs.grad)


def test_training_keeps_the_gate_with_the_lowest_tuning_loss(memory, record):
    (one,) = replays_of(memory, [record], lambda _: None)
    head = memory.model.head_weight.float().clone()
    constants = Constants(0.8, memory.prior.scalars)
    gate, best = train(RECIPE, constants, [one], [one], head, lambda _: None)
    assert best <= sum(RecencyGate(RECIPE, constants, [one]).losses([one], head)) + 1e-6
    assert gate.losses([one], head)[0] == pytest.approx(best, abs=1e-5)


def test_constants_are_those_with_the_lowest_loss(memory, record):
    (one,) = replays_of(memory, [record], lambda _: None)
    head = memory.model.head_weight.float().clone()
    found = best_constants([one], head, memory.prior.scalars, lambda _: None)
    chosen = Follower([one], found.decay, found.scalars).losses(head, found.scalars)[0]
    for decay in (0.0, 0.95):
        for eta in (0.0, 0.06):
            scalars = replace(memory.prior.scalars, eta_recent=eta)
            assert chosen <= Follower([one], decay, scalars).losses(head, scalars)[0] + 1e-6


def test_table_compares_each_method_with_the_one_before(memory, record):
    replays = replays_of(memory, [record], lambda _: None)
    none = Constants(0.95, replace(memory.prior.scalars, eta_recent=0.0))
    rows, each = table(memory, [record], replays, Fitted(none, {}, {}), lambda _: None)
    named = {row.name: row.value for row in rows}
    assert named[f"{BEST}, minus {ALONE}"] == named[f"{BEST} + kNN, minus {ALONE} + kNN"] == 0
    (losses,) = each
    head = memory.model.head_weight.float()
    votes = [replace(s, votes=torch.zeros(len(s.targets), 2)) for s in replays[0].steps if len(s.targets)]
    alone = mean_by_repository([[(float(next_loss(head, s.hidden, s)), len(s.targets)) for s in votes]])
    assert losses["base model"] == pytest.approx(alone[0], abs=1e-4)
    mixed = [(float(next_loss(head, s.mapped, s)), len(s.targets)) for s in replays[0].steps if len(s.targets)]
    assert losses[f"{ALONE} + kNN"] == pytest.approx(mean_by_repository([mixed])[0], abs=1e-3)
    assert losses["base model + kNN"] < losses["base model"]  # the commits rewrite one file
