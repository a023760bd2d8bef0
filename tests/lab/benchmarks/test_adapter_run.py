"""Whole runs on tiny repositories: sharding, resuming, reports, and the methods."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from c2l_lab.benchmarks.adapters import assemble, cli, merge, metrics, scoring
from c2l_lab.benchmarks.adapters.metrics import Amounts
from c2l_lab.benchmarks.adapters.rest_of_line import Lines
from c2l_lab.benchmarks.adapters.run import Plan, Run
from c2l_lab.benchmarks.methods import build
from c2l_lab.benchmarks.methods.protocol import Options, Setup
from c2l_lab.repositories.cases import Case, Sizes
from c2l_lab.repositories.spans import Span

from c2l_lsp.engine.adaptation.validation import ValidationResult, Validator
from c2l_lsp.errors import AdapterError, CorpusError, SettingError
from c2l_lsp.model.adapter.finetune_lora import fit_lora
from c2l_lsp.model.adapter.lora import Adapter, AdapterSlot
from c2l_lsp.model.runtime.lora_pair import LoraPair

SIZES = Sizes(state=3000, targets=3000, least_state=500, least_targets=500, least_file=300, most_file=3000, newest=1)
AMOUNTS = Amounts(scored=48, short_scored=48, pair_scored=48, aged=48, spans=3, short_spans=2, aged_spans=2)
METHODS = "base,memory,gated,mean,retrieval,dependencies,static,evo,text2lora,shared,sgd"


def _setup(tiny, world, work: Path) -> Setup:
    settings = Options(world.weights, world.corpus, work, shared_tokens=300, rank=2, epochs=0.1)
    return Setup(tiny, settings)


def _run(tiny, world, work: Path, methods: str = METHODS, amounts: Amounts = AMOUNTS) -> tuple[Run, dict[str, str]]:
    chosen, missing = build(methods.split(","), _setup(tiny, world, work))
    return Run(tiny, chosen, Plan(world.corpus, world.mirror, work, 3, SIZES, amounts), lambda line: None), missing


def _scores(work: Path) -> dict[str, object]:
    """The content of all unit files without times."""
    found = {}
    for path in sorted((work / "units").rglob("*.json")):
        value = json.loads(path.read_text())
        value.pop("cost")
        value.pop("seconds", None)
        for cell in value.values():
            for answer in cell if isinstance(cell, list) else []:
                answer.pop("ms")
        found[str(path.relative_to(work))] = value
    return found


def _tick(done: int, total: int, what: str) -> None:
    pass


@pytest.fixture(scope="module")
def whole(tiny, world, tmp_path_factory):
    """A complete run with its reports."""
    work = tmp_path_factory.mktemp("whole")
    run, missing = _run(tiny, world, work)
    assert assemble.work(run, (0, 1), 0.0, _tick)
    out = assemble.Out(work / "a.json", work / "a.md")
    return run, missing, work, assemble.assemble(run, missing, out)


def test_shards_and_resumed_runs_equal_single_run(tiny, world, whole, tmp_path):
    methods = "base,memory,mean"
    for shard in ((1, 2), (0, 2)):
        run, _ = _run(tiny, world, tmp_path, methods)
        count = len(run.share(shard))
        for unit in run.share(shard)[: count // 2]:  # a leg that ends in the middle
            run.do(unit)
        run, _ = _run(tiny, world, tmp_path, methods)  # and another process that goes on
        with pytest.raises(CorpusError, match="have not run"):
            run.results()
        assert assemble.work(run, shard, 0.0, _tick)
    mine, all_of_it = _scores(tmp_path), _scores(whole[2])
    assert mine and all(all_of_it[name] == value for name, value in mine.items())
    assert len(run.results()) == len(run.units())


def test_finished_unit_is_reused_unless_amounts_change(tiny, world, whole, monkeypatch):
    run, _ = _run(tiny, world, whole[2], "base,memory,mean")
    monkeypatch.setattr(metrics, "loss", None)  # would fail if it were called
    assert assemble.work(run, (0, 1), 0.0, _tick)
    other, _ = _run(tiny, world, whole[2], "base,memory,mean", replace(AMOUNTS, spans=4))
    assert not any(other.file(unit).is_file() for unit in other.units())


def test_skipped_part_has_no_units_and_is_in_manifest(tiny, world, whole):
    run, missing = _run(tiny, world, whole[2], "base,memory,mean")
    fewer = Run(tiny, list(run.methods.values()), replace(run.plan, without=frozenset({"memory.ages"})), print)
    gone = set(run.units()) - set(fewer.units())
    assert gone and {(unit.method, unit.part) for unit in gone} == {("memory", "ages")}
    assert assemble.manifest(fewer, missing, {})["parts_left_out"] == ["memory.ages"]
    with pytest.raises(SettingError, match=r"memory\.age"):
        cli._parts(["memory.age"])


def test_remaining_time_is_estimated_from_finished_units(tiny, world, tmp_path):
    run, _ = _run(tiny, world, tmp_path, "base,memory")
    units = run.share((0, 1))
    assert assemble.estimate(run, (0, 1)) == (0, len(units))
    run.do(units[0])
    same = [unit for unit in units[1:] if (unit.method, unit.part) == (units[0].method, units[0].part)]
    seconds, unknown = assemble.estimate(run, (0, 1))
    assert seconds > 0 and unknown == len(units) - 1 - len(same)


def test_case_is_rebuilt_when_sizes_change(tiny, world, tmp_path):
    def states(sizes: Sizes) -> int:
        chosen, _ = build(["base"], _setup(tiny, world, tmp_path))
        run = Run(tiny, chosen, Plan(world.corpus, world.mirror, tmp_path, 2, sizes, AMOUNTS), lambda line: None)
        return sum(map(len, run.repositories[run.repositories.names[0]].state.values()))

    assert states(replace(SIZES, state=600)) < states(SIZES)
    assert not list(tmp_path.rglob("*.part"))


def test_time_limit_stops_run(tiny, world, whole, tmp_path):
    run, _ = _run(tiny, world, tmp_path, "base")
    assert not assemble.work(run, (0, 1), 1e-9, _tick)


def test_reports_contain_all_rows_and_manifest(whole):
    run, missing, work, rows = whole
    names = {(row.name, row.method) for row in rows}
    for prefix in (0, 256, 1024):
        assert ("own_minus_mean/prefix1024", "memory") in names and (f"delta_ce/prefix{prefix}", "memory") in names
    wanted = (
        "exact_match", "edit_similarity", "own_minus_other/prefix1024", "top1/prefix1024", "mean_rank/prefix1024",
        "fresh_minus_stale20/snapshot", "ms_per_request", "prompt_tokens", "adapter_seconds", "adapter_seconds_of_sgd",
        "worst_repository/prefix1024", "rename_rise",
    )  # fmt: skip
    assert {name for name in wanted if (name, "memory") not in names} <= {"fresh_minus_stale20/snapshot", "rename_rise"}
    assert ("delta_ce/prefix0", "retrieval") not in names and ("delta_ce/prefix1024", "retrieval") in names
    for method in ("static", "evo", "sgd"):
        assert {
            ("own_minus_mean/prefix1024", method),
            ("top1/prefix1024", method),
            ("delta_ce/prefix0", method),
        } <= names
    assert {("stale_ce/0", "evo"), ("stale_ce/followed", "static"), ("exact_match", "shared")} <= names
    assert ("own_minus_mean/prefix1024", "shared") not in names  # it is not fitted per repository
    made = json.loads((work / "a.json").read_text())
    assert made["manifest"]["weights"]["base"] == run.model.digest and len(made["rows"]) == len(rows)
    assert missing.keys() == {"text2lora"} == made["manifest"]["not_trained"].keys()
    assert all(len(commit) == 40 for commit in made["manifest"]["data"].values())
    assert "| text2lora | not run" in (work / "a.md").read_text()


def test_constant_adapter_misses_bar(tiny, world, tmp_path, monkeypatch):
    from c2l_lab.benchmarks.methods.memory import MemoryMethod

    same = Adapter(tiny.digest, "memory", torch.eye(tiny.d) * 0.01)
    monkeypatch.setattr(MemoryMethod, "adapter", lambda self, case, texts: same)
    run, missing = _run(tiny, world, tmp_path, "base,memory")
    for unit in run.units():
        run.do(unit)
    by = {row.name: row for row in assemble.assemble(run, missing, assemble.Out()) if row.method == "memory"}
    assert by["own_minus_mean/prefix1024"].holds is False and by["top1/prefix1024"].holds is False
    assert by["adapter_cosine"].value == pytest.approx(1.0)


def test_unknown_method_is_named_in_error(tiny, world, tmp_path):
    with pytest.raises(AdapterError, match="magic"):
        _run(tiny, world, tmp_path, "base,magic")


@pytest.fixture
def case() -> Case:
    helper = "def helper_sum(left, right):\n    return left + right\n\n\nclass Basket:\n    size = 3\n"
    body = "from shop.helper import helper_sum, Basket\n\n\ndef use(a, b):\n    print(a)\n    return helper_sum(a, b)\n"
    filler = "".join(f"def filler_{i}(x):\n    return x * {i} + unrelated_{i}\n\n\n" for i in range(80))
    state = {"shop/helper.py": helper, "shop/filler.py": filler}
    return Case("a/b", "c", {"main.py": body}, ["main.py"], {0: state}, {0: state}, {})


class _Pool:
    names = ("a/b",)

    def fitted(self, method, name):
        raise AssertionError


def test_published_token_index_has_the_strength_of_its_validation(tiny, world, tmp_path, case, monkeypatch):
    (_, plain, gated), _ = build(["tokens", "gated-tokens"], _setup(tiny, world, tmp_path))

    class Pool:
        names = ("a/b",)

        def fitted(self, method, name):
            return plain.fit(case, self)

    files = {f"shop/part{i}.py": f"def part_{i}(x):\n    return x + {i}\n" for i in range(8)}
    many = replace(case, states={0: {**case.state, **files}})
    asked = []

    def validate(self, adapter, digests):
        asked.append((len(adapter.knn.tokens), len(digests)))
        return ValidationResult(0.0, -0.1, 100, knn_strength=0.4)

    monkeypatch.setattr(Validator, "validate", validate)
    found, whole = gated.fit(many, Pool()), plain.fit(case, Pool())
    assert found.adapter.knn.strength == 0.4 and found.adapter.knn.tokens.digest == whole.adapter.knn.tokens.digest
    assert [count for _, count in asked] == [2]  # a quarter of the files
    assert asked[0][0] < len(plain.fit(many, Pool()).adapter.knn.tokens)  # they are not in the index that is validated
    monkeypatch.setattr(Validator, "validate", lambda *_: ValidationResult(0.0, 0.1, 100, "worse", knn_strength=0.0))
    assert gated.fit(many, Pool()).adapter.knn is None


def test_contexts_are_relevant_and_within_budget(tiny, world, tmp_path, case):
    chosen, _ = build(["retrieval", "dependencies"], _setup(tiny, world, tmp_path))
    before = case.targets["main.py"]
    for method in chosen[1:]:
        fitted = method.fit(case, _Pool())
        text = fitted.context(before, "main.py")
        assert "def helper_sum(left, right):" in text and fitted.budget == 512
        assert len(tiny.encode(text)) <= fitted.budget + 8
        assert fitted.context("", "nothing.py") == ""


def test_window_with_context_fits_model(tiny, case):
    long = {"main.py": "value = compute(first, second)\n" * 400}
    for prefix in (256, 1024):
        for window in scoring.windows(tiny, long, prefix, 600):
            ids, seen = scoring.with_context(tiny, window, lambda b, p: "context " * 900, 512)
            assert len(ids) <= tiny.max_context + 1
            assert ids[seen + 1 :] == window.ids[window.seen + 1 :]  # the scored tokens are the same
            assert len(window.ids) <= tiny.max_context + 1


def test_scored_tokens_are_independent_of_adapter(tiny, case):
    adapter = fit_lora(tiny, list(case.state.values()), rank=2, steps=2, rate=1e-2, length=64)
    reader = scoring.Reader(tiny)
    chosen, bare = reader.base_states("k", case.targets, 0, 200)
    base = reader.loss(chosen, bare, None)
    assert reader.loss(chosen, bare, adapter) != base
    assert reader.loss(chosen, scoring.read(tiny, chosen), None) == base  # the weights are back in place
    slot = AdapterSlot(tiny)
    slot.activate(adapter)
    hooked = scoring.scores(tiny, scoring.read(tiny, chosen), None).mean_loss
    slot.activate(None)
    assert reader.loss(chosen, bare, adapter) == pytest.approx(hooked, abs=1e-4)


def test_sum_of_adapters_is_sum_of_weights(tiny):
    dice = torch.Generator().manual_seed(1)
    name = "model.layers.0.self_attn.q_proj"

    def one() -> Adapter:
        pair = LoraPair(torch.randn(2, 64, generator=dice), torch.randn(64, 2, generator=dice), 0.5)
        return Adapter(tiny.digest, "x", torch.randn(64, 64, generator=dice), {name: pair})

    a, b = one(), one()
    both = merge.combine([(0.25, merge.dense(a)), (0.75, merge.dense(b))], a.base, "mix")
    both.check(tiny)
    wanted = 0.25 * merge.dense(a)[name] + 0.75 * merge.dense(b)[name]
    assert torch.allclose(merge.dense(both)[name], wanted, atol=1e-5)
    flat = [torch.cat([t.flatten() for _, t in sorted(merge.dense(x).items())]) for x in (a, b)]
    assert merge.cosine(a, b) == pytest.approx(float(torch.cosine_similarity(*flat, dim=0)), abs=1e-5)
    assert merge.cosine(a, a) == pytest.approx(1.0) and merge.cosine(a, both) == pytest.approx(merge.cosine(both, a))


def test_rest_of_line_uses_engine_and_first_line(tiny, case):
    text = case.targets["main.py"]
    start = text.index("helper_sum(a, b)")
    span = Span("main.py", start, start + len("helper_sum(a, b)"), "unseen")
    lines = Lines(tiny)
    bare = lines.ask(case.targets, [span])[0]
    assert bare == replace(lines.ask(case.targets, [span])[0], ms=bare.ms) and bare.prompt_tokens > 0
    # a final map that turns every score around shows in the texts; of some, nothing is left to show
    spans = [Span("main.py", at, len(text), "unseen") for at in range(start - 30, start + 40)]
    told = lines.ask(case.targets, spans, Adapter(tiny.digest, "x", -2.0 * torch.eye(tiny.d)))
    assert [one.text for one in told] != [one.text for one in lines.ask(case.targets, spans)]
    with_context = lines.ask(case.targets, [span], None, lambda before, path: "x = 1\n" * 20, 64)[0]
    assert bare.prompt_tokens < with_context.prompt_tokens <= bare.prompt_tokens + 66


def test_rename_needs_definition_and_callers(case):
    old, new = metrics.renamed(case)
    assert old == "helper_sum" and new not in str(case.state)
    alone = Case("a/b", "c", {"main.py": "x = 1\n"}, ["main.py"], {0: case.state}, {0: case.state}, {})
    assert metrics.renamed(alone) is None
