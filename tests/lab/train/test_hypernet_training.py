"""Training of hypernetworks: contents of states, one adapter per row, losses, evaluation, resume, the checkpoint."""

from __future__ import annotations

import random
import subprocess
import sys
from dataclasses import replace
from typing import Any

import pytest
import torch
import typer
from c2l_lab.corpus.corpus import Document
from c2l_lab.train.devices import Devices
from c2l_lab.train.hypernet import batched_lora, data, objective, sampling
from c2l_lab.train.hypernet import network as network_module
from c2l_lab.train.hypernet.cli import train_hypernet
from c2l_lab.train.hypernet.evaluation import Evaluation, Evaluator
from c2l_lab.train.hypernet.network import Network, State, state_of
from c2l_lab.train.hypernet.recipe import Recipe
from c2l_lab.train.hypernet.text2lora import describe
from c2l_lab.train.hypernet.trainer import BEST, Leg, Trainer, rate_factor
from torch import Tensor
from typer.testing import CliRunner

from c2l_lsp.config import Model
from c2l_lsp.errors import TrainingError
from c2l_lsp.model.adapter.lora import Adapter, AdapterSlot
from c2l_lsp.model.hypernet import checkpoint
from c2l_lsp.model.hypernet.encoder import EmbeddingEncoder
from c2l_lsp.model.hypernet.lora_head import expand_to_layers
from c2l_lsp.model.hypernet.protocol import StateChange
from c2l_lsp.model.lm import base

torch.set_num_threads(1)

SIZES = data.Sizes(repositories=6, files=5, chars=700, windows=2, window=24)
RECIPE = Recipe(
    hidden=8,
    rank=2,
    alpha=4.0,
    repositories=3,
    window=24,
    prefix=4,
    steps=6,
    warmup=2,
    contrast_every=2,
    zero_start=False,
)


@pytest.fixture(scope="module")
def corpus(sources: list[str]) -> list[Document]:
    """Six repositories of five different files."""
    texts = [text for text in sources if len(text) > 1500][:30]
    return [Document(f"{i}", f"owner{i % 6}/name", f"m{i}.py", text) for i, text in enumerate(texts)]


@pytest.fixture(scope="module")
def repositories(tiny, corpus, tmp_path_factory) -> list[data.Repo]:
    make = data.pooled_maker(tiny, EmbeddingEncoder.of_base(tiny), SIZES, described=False, held_out=False)
    return data.prepare(tmp_path_factory.mktemp("data"), "train", corpus, make, SIZES, lambda _: None)


def streams(count: int = 4, T: int = 3, hidden: int = 64) -> list[data.Repo]:
    """Repositories with histories, of random embeddings."""
    rng = torch.Generator().manual_seed(5)
    made = []
    for n in range(count):
        files, diffs = torch.randn(4, hidden, generator=rng), torch.randn(T, 2 * hidden, generator=rng)
        ids = torch.randint(0, 500, (4, 25), generator=rng, dtype=torch.int32)
        made.append(data.Repo(f"r{n}", files, torch.eye(4, dtype=torch.bool), ids, torch.tensor([1, 2, 3, 3]), diffs))
    return made


def make_network(tiny, recipe: Recipe = RECIPE) -> Network:
    network = Network(tiny, recipe, 128)
    network.initialise(streams())
    for head in network.head.layer_gain.children():
        torch.nn.init.normal_(head.weight, std=0.1)
    return network.eval()


def contexts(count: int = 3) -> list[State]:
    rng = torch.Generator().manual_seed(1)
    return [State(torch.randn(128, generator=rng), torch.zeros(0, 128)) for _ in range(count)]


def test_embeddings_are_computed_once(tiny, corpus, repositories, tmp_path):
    calls = []

    def make(name: str, documents: list[Document]) -> data.Repo | None:
        calls.append(name)
        return next((r for r in repositories if r.name == name), None)

    first = data.prepare(tmp_path, "train", corpus, make, SIZES, lambda _: None)
    second = data.prepare(tmp_path, "train", corpus, make, SIZES, lambda _: None)
    assert len(calls) == 6
    assert [r.name for r in first] == [r.name for r in second] == [r.name for r in repositories]
    assert all(torch.equal(a.files, b.files) and torch.equal(a.ids, b.ids) for a, b in zip(first, second, strict=True))


def test_state_has_neither_the_targets_file_nor_near_duplicates(repositories):
    near = torch.eye(5, dtype=torch.bool)
    near[0, 3] = near[3, 0] = True
    files = torch.arange(5.0)[:, None].expand(5, 64).clone()
    repo = replace(repositories[0], files=files, near=near, owner=torch.zeros(len(repositories[0].ids)))
    for seed in range(20):
        seen = sampling.state_without_target(repo, 0, 0.0, random.Random(seed))
        assert torch.allclose(seen.repository, state_of(repo, torch.tensor([0, 1, 1, 0, 1]).bool(), 0).repository)


def test_near_duplicates_are_found(tiny, sources):
    text = sources[5][:900]
    texts = [text, text.replace("the", "a", 1), sources[9][:900], sources[12][:900]]
    documents = [Document(str(i), "o/n", f"{i}.py", t) for i, t in enumerate(texts)]
    make = data.pooled_maker(tiny, EmbeddingEncoder.of_base(tiny), SIZES, described=False, held_out=False)
    repo = make("o/n", documents)
    ordered = sorted(range(4), key=lambda i: data.rank(f"{i}.py"))
    a, b, c = ordered.index(0), ordered.index(1), ordered.index(2)
    assert repo.near[a, b]
    assert not repo.near[a, c]


def test_evaluated_files_are_in_no_state(tiny, corpus):
    make = data.pooled_maker(tiny, EmbeddingEncoder.of_base(tiny), SIZES, described=False, held_out=True)
    repo = make("owner0/name", [d for d in corpus if d.repo == "owner0/name"])
    from c2l_lab.train.hypernet.evaluation import _held_state

    held = repo.owner.unique().long()
    assert held.tolist() == [0]
    rest = torch.tensor([0, 1, 1, 1, 1]).bool() & ~repo.near[0]
    assert torch.equal(_held_state(repo).repository, state_of(repo, rest, 0).repository)


@pytest.mark.parametrize("per_layer", [False, True])
def test_each_row_runs_with_its_own_adapter(tiny, per_layer):
    network = make_network(tiny, replace(RECIPE, per_layer=per_layer))
    ids = torch.randint(0, 500, (3, 20), generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        pairs = network(contexts())
        with batched_lora.apply_pairs(tiny, pairs, 40.0):
            together = batched_lora.next_token_logits(tiny, ids)
        slot = AdapterSlot(tiny)
        for n in range(3):
            own = expand_to_layers({t: (A[n], B[n]) for t, (A, B) in pairs.items()}, network.layers, 40.0)
            slot.activate(Adapter(tiny.digest, "x", pairs=own))
            alone = slot.logits(tiny.hidden(ids[n : n + 1]))
            torch.testing.assert_close(together[n : n + 1], alone, rtol=1e-4, atol=1e-4)
        slot.activate(None)
        base_logits = batched_lora.next_token_logits(tiny, ids)  # the hooks are removed
    torch.testing.assert_close(base_logits, tiny.logits(tiny.hidden(ids)))
    assert float((together - base_logits).abs().max()) > 1e-3


@pytest.mark.parametrize("per_layer", [False, True])
def test_mean_and_norm_are_exact(tiny, per_layer):
    network = make_network(tiny, replace(RECIPE, per_layer=per_layer))
    with torch.no_grad():
        pairs = network(contexts())

    def delta(some: batched_lora.Pairs, t: str, n: int, layer: int) -> Tensor:
        A, B = some[t]
        return (B[n, layer] if B.dim() == 4 else B[n]) @ A[n]

    mean, total = batched_lora.mean_adapter(pairs), torch.zeros(3)
    for t in pairs:
        for layer in range(network.layers):
            each = torch.stack([delta(pairs, t, n, layer) for n in range(3)])
            torch.testing.assert_close(delta(mean, t, 0, layer), each.mean(0), rtol=1e-4, atol=1e-8)
            total += (2.0 * each).square().sum((1, 2))
    torch.testing.assert_close(batched_lora.squared_norm(pairs, 2.0, network.layers), total, rtol=1e-4, atol=1e-8)


def test_mean_repository_gets_no_weights_with_a_residual(tiny):
    network = make_network(tiny)
    mean = State(network.head.context_mean, torch.zeros(0, 128))
    with torch.no_grad():
        assert float(batched_lora.squared_norm(network([mean]), 2.0, network.layers)) == 0.0
        assert float(batched_lora.squared_norm(network(contexts(1)), 2.0, network.layers)) > 0.0
        plain = make_network(tiny, replace(RECIPE, residual=False))
        assert float(batched_lora.squared_norm(plain([mean]), 2.0, network.layers)) > 0.0


def test_first_layer_starts_on_standardised_embeddings(tiny):
    repos = [replace(r, files=r.files * 0.001 + 7.0) for r in streams(32)]
    network = Network(tiny, replace(RECIPE, components=0), 128)
    before = network.head.trunk[0].weight.clone()
    network.initialise(repos)
    whole = torch.stack([state_of(r, torch.ones(4, dtype=torch.bool), 0).repository for r in repos])
    wanted = ((whole - whole.mean(0)) / whole.std(0).clamp(min=1e-6)) @ before.T
    found = network.head.trunk[0](whole) - Network(tiny, RECIPE, 128).head.trunk[0].bias
    torch.testing.assert_close(found, wanted, rtol=1e-2, atol=2e-2)


def test_first_layer_ignores_directions_that_hardly_vary(tiny):
    """The leading components of the embeddings get equal weight; the others would only tell repositories apart."""
    rng = torch.Generator().manual_seed(3)
    inputs = torch.randn(40, 2, generator=rng) @ torch.randn(2, 16, generator=rng) + 1e-2 * torch.randn(40, 16)
    layer = torch.nn.Linear(16, 8)
    network_module._standardise(layer, inputs, 2)
    out = layer(inputs)
    s = torch.linalg.svdvals((out - out.mean(0)).detach())
    assert float(s[2]) < 0.02 * float(s[0])


@torch.no_grad()
def test_contrast_loss_prefers_the_own_adapter(tiny):
    """The term is ln 2 when all adapters are the same, and nothing where the own ones are far better."""
    network = make_network(tiny)
    ids = torch.randint(0, 500, (3, 25), generator=torch.Generator().manual_seed(2))
    same = [contexts(1)[0]] * 3
    own = batched_lora.row_losses(tiny, ids, network(same), network.scale, prefix=RECIPE.prefix)
    term = objective.contrast_loss(tiny, RECIPE, network(same), network.scale, ids, own)
    assert float(term) == pytest.approx(0.6931, abs=1e-3)
    apart = torch.tensor([0.0, 0.0, 0.0])  # as if the own adapters were far better
    assert float(objective.contrast_loss(tiny, RECIPE, network(same), network.scale, ids, apart)) < 0.01


@torch.no_grad()
def test_teacher_counts_only_where_it_predicts_better(tiny):
    ids = torch.randint(0, 500, (2, 13), generator=torch.Generator().manual_seed(2))
    related = torch.randint(0, 500, (2, 12), generator=torch.Generator().manual_seed(3))
    logits = torch.randn(2, 12, tiny.vocabulary, generator=torch.Generator().manual_seed(4))
    perfect = torch.zeros(2, 12)  # a student that the teacher cannot beat
    assert float(objective.distillation_loss(tiny, ids, related, logits, perfect)) == 0.0
    poor = torch.full((2, 12), 50.0)
    assert float(objective.distillation_loss(tiny, ids, related, logits, poor)) > 0.0


def test_gradients_reach_the_first_of_several_commits(tiny):
    network = make_network(tiny, replace(RECIPE, kind="evo"))
    diffs = torch.randn(3, 128, requires_grad=True)
    ids = torch.randint(0, 500, (1, 25), generator=torch.Generator().manual_seed(2))
    pairs = network([State(torch.randn(128), diffs)])
    total, _ = objective.loss(tiny, RECIPE, pairs, 50.0, network.layers, ids, compare=False, related=None)
    total.backward()
    assert all(float(diffs.grad[t].norm()) > 0 for t in range(3))


def test_states_of_different_ages_are_unrolled_in_one_batch(tiny):
    network = make_network(tiny, replace(RECIPE, kind="evo"))
    repo = streams()[0]
    every = torch.ones(4, dtype=torch.bool)
    with torch.no_grad():
        together = network.contexts([state_of(repo, every, age) for age in (0, 3, 1)])
        h = network.gru.initial_state(state_of(repo, every, 0).repository[None])
        alone = [network.gru.context(h)]
        for diff in repo.diffs:
            h = network.gru.step(diff[None], h)
            alone.append(network.gru.context(h))
    torch.testing.assert_close(together, torch.cat([alone[0], alone[3], alone[1]]), rtol=1e-5, atol=1e-6)


def test_state_never_contains_a_later_commit_than_its_target():
    repo = streams()[0]
    for seed in range(30):
        for row in range(4):
            assert len(sampling.state_with_diffs(repo, row, random.Random(seed)).diffs) <= int(repo.owner[row])
    ages = {len(sampling.state_with_diffs(repo, 3, random.Random(seed)).diffs) for seed in range(30)}
    assert ages == {0, 1, 2, 3}


def test_processes_share_one_batch(repositories):
    whole = sampling.draw_batch(repositories, RECIPE, 4)
    parts = [sampling.draw_batch(repositories, RECIPE, 4, (rank, 2)) for rank in range(2)]
    assert torch.equal(torch.cat([whole.ids[0::2], whole.ids[1::2]]), torch.cat([p.ids for p in parts]))
    assert not torch.equal(whole.ids, sampling.draw_batch(repositories, RECIPE, 5).ids)


def test_each_repository_is_evaluated_with_its_own_adapter(tiny, repositories):
    evaluator = Evaluator(tiny, repositories[:4], targets=2)
    network = make_network(tiny)
    one = network(contexts(1))

    class Fixed(torch.nn.Module):
        scale, layers = 2.0, network.layers

        def __init__(self, factors: list[float]) -> None:
            super().__init__()
            self.factors = torch.tensor(factors)

        def forward(self, states: list[State]) -> batched_lora.Pairs:
            rows = torch.zeros(len(states), dtype=torch.long)
            shape = (-1, 1, 1, 1)
            return {t: (A[rows], B[rows] * self.factors.view(shape)) for t, (A, B) in one.items()}

    equal = evaluator(Fixed([9.0] * 4))
    assert equal.own_minus_mean == pytest.approx(0, abs=1e-4)
    assert equal.other == pytest.approx(equal.own, abs=1e-4)
    apart = evaluator(Fixed([0.0, 0.0, 0.0, 3e5]))  # only the last repository has an adapter at all
    ids = repositories[3].ids[::5][:2]
    with torch.no_grad():
        pairs = {t: (A, B * 3e5) for t, (A, B) in one.items()}
        change = (
            batched_lora.row_losses(tiny, ids, pairs, 2.0).mean() - batched_lora.row_losses(tiny, ids, None, 1.0).mean()
        )
    assert apart.own == pytest.approx(float(change) / 4, abs=1e-4)
    assert abs(apart.own) > 1e-4


def test_an_adapter_that_harms_its_own_repository_less_than_others_is_no_gain():
    """Regression: the score added own − mean, so that a checkpoint with own = +0.08 could be the best one."""
    helpful = Evaluation(own=-0.1, mean=-0.05, other=0.0, rank=1.0, worst=0.0, norm=1.0)
    untrained, harmful = replace(helpful, own=0.0, mean=0.0), replace(helpful, own=0.1, mean=0.3)
    assert helpful.score < untrained.score < harmful.score


def test_untrained_adapter_changes_nothing_and_can_be_trained(tiny):
    network = Network(tiny, replace(RECIPE, zero_start=True), 128)
    network.initialise(streams())
    ids = torch.randint(0, 500, (3, 25), generator=torch.Generator().manual_seed(2))
    pairs = network(contexts())
    assert not batched_lora.squared_norm(pairs, network.scale, network.layers).any()
    total, _ = objective.loss(tiny, RECIPE, pairs, network.scale, network.layers, ids, compare=True, related=None)
    total.backward()
    assert all(float(head.weight.grad.norm()) > 0 for head in network.head.heads_B.children())


def test_prefix_of_a_window_is_not_scored(tiny):
    ids = torch.randint(0, 500, (2, 25), generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        whole = batched_lora.token_losses(batched_lora.next_token_logits(tiny, ids[:, :-1]), ids[:, 1:])
    found = batched_lora.row_losses(tiny, ids, None, 1.0, prefix=20)
    torch.testing.assert_close(found, whole[:, 20:].mean(1), rtol=1e-4, atol=1e-4)


def test_windows_come_from_all_parts_of_a_file(tiny):
    sizes = data.Sizes(windows=3, window=24)
    text = "\n".join(f"name_{n} = {n}" for n in range(60))
    ids = [tiny.start_id, *tiny.encode(text)]
    found = data.windows(tiny, text, sizes)
    assert [len(row) for row in found] == [25, 25, 25]
    assert found[0] == ids[:25] and found[-1] == ids[-25:]
    assert data.windows(tiny, "x = 1", sizes) == []


def test_resumed_run_equals_an_uninterrupted_run(tiny, repositories, tmp_path):
    def trainer(folder: str) -> Trainer:
        return Trainer(tmp_path / folder, RECIPE, tiny, repositories, repositories[:2])

    whole = trainer("whole")
    assert whole.train(Leg(evaluate_every=3), lambda _: None)
    first = trainer("parts")
    assert not first.train(Leg(steps=3, evaluate_every=3), lambda _: None)
    second = trainer("parts")
    assert second.step == 3
    assert second.train(Leg(evaluate_every=3), lambda _: None)
    for name, tensor in whole.network.state_dict().items():
        assert torch.equal(tensor, second.network.state_dict()[name]), name
    assert (tmp_path / "whole" / "curve.png").stat().st_size > 1000
    with pytest.raises(TrainingError, match="another rate"):
        Trainer(tmp_path / "whole", replace(RECIPE, rate=1.0), tiny, repositories, repositories[:2])


def test_training_lowers_the_loss(tiny, repositories, tmp_path):
    recipe = replace(RECIPE, steps=40, rate=3e-2, contrast=0.0, repositories=6)
    run = Trainer(tmp_path, recipe, tiny, repositories, repositories[:2])
    batch = sampling.draw_batch(repositories, recipe, 0)

    def own() -> float:
        with torch.no_grad():
            return float(batched_lora.row_losses(tiny, batch.ids, run.network(batch.states), run.network.scale).mean())

    before = own()
    for _ in range(40):
        run.one_step()
    assert own() < before - 0.03


@pytest.mark.parametrize("kind", ["static", "evo"])
def test_checkpoint_generates_the_same_adapter_in_the_engine(tiny, tmp_path, kind, sources):
    network = make_network(tiny, replace(RECIPE, kind=kind))
    checkpoint.save(network.checkpoint(tiny, {"step": 3.0, "per_layer": True}), tmp_path / kind)
    loaded = checkpoint.load(tmp_path / kind)
    assert loaded.manifest.training == {"step": 3.0, "per_layer": True}
    made = loaded.hypernetwork(tiny, EmbeddingEncoder.of_base(tiny))
    texts = [text[:600] for text in sources[3:6]]
    change = StateChange(added=made.embed([p for text in texts for p in made.chunks(text)]), first=True)
    (found,) = made.update([made.empty_state()], [change])
    with torch.no_grad():
        pairs = network([State(EmbeddingEncoder.of_base(tiny).repository(texts), torch.zeros(0, 128))])
    wanted = expand_to_layers({t: (A[0], B[0]) for t, (A, B) in pairs.items()}, network.layers, network.scale)
    adapter = made.generate(found)
    adapter.check(tiny)
    for name, pair in wanted.items():
        got = adapter.pairs[name]
        torch.testing.assert_close(got.scale * got.B @ got.A, pair.scale * pair.B @ pair.A, rtol=1e-3, atol=1e-8)


def test_best_checkpoint_is_saved(tiny, repositories, tmp_path, monkeypatch):
    run = Trainer(tmp_path, RECIPE, tiny, repositories, repositories[:2])
    scores = iter([9.0, 0.5, 0.7, 0.9])  # before the first step, then after each third
    real = run.evaluator.__call__
    monkeypatch.setattr(run, "evaluator", lambda network: replace(real(network), own=0.0, mean=-next(scores)))
    run.train(Leg(evaluate_every=2), lambda _: None)
    assert checkpoint.load(tmp_path / BEST).manifest.training["step"] == 2.0


def test_learning_rate_rises_and_falls():
    assert rate_factor(0, RECIPE) == 0.5
    assert rate_factor(2, RECIPE) == pytest.approx(1.0)
    assert rate_factor(RECIPE.steps, RECIPE) == pytest.approx(0.05)


def test_description_contains_words_but_no_code():
    text = (
        '# licence\n\n"""Reads maps.\n\nSlowly."""\nimport os\n\n\ndef load(path):\n'
        '    """Load one map."""\n    return os\n\n\nclass Tile:\n    x = 1\n'
    )
    assert describe(text) == "Reads maps.\n\nSlowly.\nload: Load one map.\nTile"
    assert describe("x = 1\n") == ""


def test_gradients_of_two_processes_add_up_to_that_of_one(tiny, repositories, tmp_path):
    class Part(Devices):
        def __init__(self, rank: int, count: int) -> None:
            self.rank, self.count, self.device = rank, count, torch.device("cpu")
            self.seen: list[Tensor] = []

        def sum_gradients(self, parameters) -> None:
            self.seen = [p.grad.clone() for p in parameters if p.grad is not None]

        def sum(self, number: float) -> float:
            return number

    recipe = replace(RECIPE, repositories=4, contrast=0.0)
    found = []
    for rank, count in ((0, 1), (0, 2), (1, 2)):
        devices = Part(rank, count)
        run = Trainer(tmp_path / f"{rank}{count}", recipe, tiny, repositories, repositories[:2], devices)
        run.one_step()
        found.append(devices.seen)
    for whole, first, second in zip(*found, strict=True):
        torch.testing.assert_close(first + second, whole, rtol=1e-3, atol=1e-6)


def test_command_writes_a_folder_that_the_engine_loads(tiny_folder, corpus, tmp_path, monkeypatch):
    app = typer.Typer()
    app.command()(train_hypernet)
    monkeypatch.setattr("c2l_lab.corpus.corpus.documents", lambda folder: iter(corpus))

    def call(*more: object) -> Any:
        words = ("--corpus", tmp_path, "--tune", tmp_path, "--model", tiny_folder, "--out", tmp_path / "static")
        return CliRunner().invoke(app, [str(word) for word in (*words, *more)])

    settings = [word for one in ("steps=2", "repositories=3", "hidden=8", "rank=2", "chars=400", "files=4", "window=24",
                                 "prefix=4") for word in ("--set", one)]  # fmt: skip
    done = call("--kind", "static", "--run", tmp_path / "run", "--repositories", 5, *settings)
    assert done.exit_code == 0, done.output
    made = checkpoint.load(tmp_path / "static")
    assert made.manifest.training["step"] == 2.0
    assert made.manifest.base_digest == base.load(Model(path=str(tiny_folder), device="cpu")).digest
    assert str(tmp_path) not in (tmp_path / "static" / "checkpoint.json").read_text()
    assert isinstance(call("--kind", "static").exception, TrainingError)
    assert "Unknown option of --set: colour" in str(
        call("--kind", "static", "--run", tmp_path, "--set", "colour=1").exception
    )
    assert "--mirror" in str(call("--kind", "evo", "--run", tmp_path / "evo").exception)
    assert "Unknown kind" in str(call("--kind", "magic").exception)


def test_importing_the_command_loads_no_torch():
    code = "import sys, c2l_lab.train.hypernet.cli; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
