"""Generation, the input of methods, resumable predictions, and the commands."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from c2l_lab.benchmarks.repopeft import compare, generate, methods, run
from c2l_lab.benchmarks.repopeft.assert_cli import bench_assert
from c2l_lab.benchmarks.repopeft.cli import repopeft_app
from c2l_lab.benchmarks.repopeft.dataset import build
from c2l_lab.benchmarks.repopeft.dataset.schema import Commit
from c2l_lab.benchmarks.repopeft.dataset.source import open_dataset
from c2l_lab.benchmarks.repopeft.generate import Generator
from typer.testing import CliRunner

from c2l_lsp.errors import AdapterError, CorpusError
from c2l_lsp.model.adapter.lora import Adapter
from c2l_lsp.model.runtime.lora_pair import LoraPair
from tests.support.repopeft_repositories import MIT, Repo, grow, suite

PREFIX = "import os\n\ndef test_a():\n    assert os.path.join('a', 'b') == "


@pytest.fixture
def benchmark(tmp_path: Path, mirror: Path) -> Path:
    for name, commits in (("own/a", 3), ("own/b", 4)):
        repo = Repo(mirror, name)
        repo.commit({"LICENSE": MIT})
        grow(repo, commits)
    build.build(["own/a", "own/b"], mirror, tmp_path / "data", assign="cr_test", workers=1)
    return tmp_path / "data"


class Fixed:
    """A method without an adapter that records its calls."""

    name, digest = "fixed", ""

    def __init__(self) -> None:
        self.asked = []

    def adapter(self, commit: Commit):
        self.asked.append(commit.commit_sha)


class Says:
    """A generator with known predictions."""

    def __init__(self, stop_after: int | None = None) -> None:
        self.calls, self._stop = 0, stop_after

    def use(self, adapter) -> None:
        pass

    def predict(self, prefix: str) -> str:
        if self.calls == self._stop:
            raise KeyboardInterrupt
        self.calls += 1
        return f"value_{prefix.count('==') - 1}\nrest"


def test_prediction_is_greedy_continuation(tiny):
    """Compared with `generate` of transformers on the same ids."""
    made = generate.generate(tiny, None, PREFIX)
    ids = torch.tensor([[tiny.start_id, *tiny.encode(PREFIX)]])
    stops = {"eos_token_id": tiny.tokenizer.eos_token_id, "pad_token_id": tiny.tokenizer.pad_token_id}
    out = tiny.lm.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=64, do_sample=False, **stops)
    assert made == tiny.decode(out[0, ids.shape[1] :].tolist())
    assert made


def test_prompt_starts_with_start_token_and_is_cut_on_the_left(tiny):
    generator = generate.Generator(tiny)
    assert generator.prompt("x = 1") == [tiny.start_id, *tiny.encode("x = 1")]
    long = "\n".join(f"value_{i} = {i}" for i in range(2000))
    assert generator.prompt(long) == tiny.encode(long)[-(tiny.max_context - 64) :]
    assert generator.predict(long)  # it fits


class Ends:
    """A tokenizer with another eos token and the same start token."""

    def __init__(self, tokenizer, eos: int) -> None:
        self._tokenizer, self.eos_token_id, self.bos_token_id = tokenizer, eos, tokenizer.eos_token_id

    def __call__(self, *args, **options):
        return self._tokenizer(*args, **options)

    def __getattr__(self, name: str):
        return getattr(self._tokenizer, name)


def test_prediction_stops_at_64_tokens_or_eos(tiny):
    fed = torch.tensor([[tiny.start_id, *tiny.encode(PREFIX)]])
    out = tiny.lm.generate(
        fed, attention_mask=torch.ones_like(fed), max_new_tokens=80, do_sample=False, eos_token_id=-1
    )
    ids = out[0, fed.shape[1] :].tolist()
    never = replace(tiny, tokenizer=Ends(tiny.tokenizer, -1))
    assert generate.Generator(never).predict(PREFIX) == tiny.decode(ids[:64])
    ended = replace(tiny, tokenizer=Ends(tiny.tokenizer, ids[-1]))
    assert generate.Generator(ended).predict(PREFIX) == tiny.decode(ids[: ids.index(ids[-1])])


def test_adapters_alternate(tiny):
    """The decoder's cache of one adapter must not affect the next one's predictions."""
    torch.manual_seed(0)
    strong = Adapter(tiny.digest, "memory", torch.randn(tiny.d, tiny.d))
    pairs = {f"model.layers.{i}.self_attn.o_proj": LoraPair(torch.randn(9, 64), torch.randn(64, 9)) for i in (0, 1)}
    inner = Adapter(tiny.digest, "static", None, pairs)
    generator = generate.Generator(tiny)
    ids = torch.tensor([tiny.encode(PREFIX)])
    before = tiny.hidden(ids)
    alone = [generate.generate(tiny, adapter, PREFIX) for adapter in (None, strong, inner)]
    assert len(set(alone)) == 3
    for number in (0, 1, 2, 1, 0, 2, 0):
        generator.use((None, strong, inner)[number])
        assert generator.predict(PREFIX) == alone[number]
    assert torch.equal(tiny.hidden(ids), before)  # what was plugged in for one prediction is gone with it


def test_adapter_of_another_model_is_rejected(tiny):
    with pytest.raises(AdapterError):
        generate.Generator(tiny).use(Adapter("another", "memory", torch.zeros(tiny.d, tiny.d)))


def test_state_contains_only_production_files_of_commit(mirror, monkeypatch):
    monkeypatch.setattr(
        methods.MemoryState, "__init__", lambda self, mirror: self.__dict__.update(_mirror=mirror, _chars=60)
    )
    repo = Repo(mirror, "own/a")
    sha = repo.commit({
        "a.py": "one = 1\n", "b.py": "two = 2\n" * 3, "tests/helper.py": "answer = 1\n",
        "test_a.py": suite("assert a == 1"), "vendor/x.py": "v = 1\n", "a.txt": "no",
    })  # fmt: skip
    repo.commit({"a.py": "later = 1\n"})
    state = methods.MemoryState(mirror)
    assert sorted(state.texts(Commit("own/a", sha, 0))) == ["one = 1\n", "two = 2\n" * 3]
    state._chars = 20
    assert sum(map(len, state.texts(Commit("own/a", sha, 0)))) == 20
    with pytest.raises(CorpusError, match="own/none is not below"):
        state.texts(Commit("own/none", sha, 0))


def test_memory_adapter_is_generated_from_state_text(mirror, tiny, monkeypatch):
    from c2l_lab.train.memory.held_out import state_of

    from c2l_lsp.model.hypernet import prior
    from c2l_lsp.model.hypernet.gradient_memory import GradientMemory

    texts = {"a.py": "def one(x):\n    return x + 1\n", "b.py": "def two(y):\n    return y * 2\n"}
    d = tiny.d
    made = prior.MemoryPrior(torch.eye(d), torch.eye(d), torch.zeros(d, d), torch.eye(d)[:64])
    monkeypatch.setattr("c2l_lsp.engine.adaptation.registry.shipped_prior", lambda model: made)
    repo = Repo(mirror, "own/a")
    first = repo.commit({**texts, "test_a.py": suite("assert a == 1")})
    second = repo.commit({"b.py": None})
    method = methods.MemoryState(tiny, mirror)
    memory = GradientMemory(tiny, made)
    for sha, standing in ((first, list(texts.values())), (second, [texts["a.py"]])):
        found = method.adapter(Commit("own/a", sha, 0))
        expected = memory.generate(state_of(memory, standing))
        torch.testing.assert_close(found.final_map, expected.final_map, rtol=1e-4, atol=1e-6)
    third = repo.commit({"a.py": None})
    assert method.adapter(Commit("own/a", third, 0)) is None


def test_stopped_run_continues(benchmark, tmp_path):
    data, out = open_dataset(benchmark, "commits"), tmp_path / "p.jsonl"
    total = sum(len(step.tasks) for step in run.selected(data, "cr_test"))
    with pytest.raises(KeyboardInterrupt):
        run.predict(run.selected(data, "cr_test"), Fixed(), Says(stop_after=3), out)
    held = out.read_text()
    out.write_text(held + '{"id": "torn')
    again, method = Says(), Fixed()
    run.predict(run.selected(data, "cr_test"), method, again, out)
    assert again.calls == total - held.count("\n")
    assert len(set(method.asked)) == len(method.asked)
    found = run.predictions(out)
    assert sorted(found) == sorted(t.id for t in data.tasks("cr_test"))
    values = run.score(run.selected(data, "cr_test"), found, codebleu=False)
    assert values["exact_match"] == {"own/a": [1.0] * 3, "own/b": [1.0] * 4}


def test_predictions_of_another_method_are_not_continued(benchmark, tmp_path):
    data, out = open_dataset(benchmark, "commits"), tmp_path / "p.jsonl"
    out.write_text('{"id": "x", "method": "memory", "prediction": ""}\n')
    with pytest.raises(CorpusError, match="contains predictions of memory"):
        run.predict(run.selected(data, "cr_test"), Fixed(), Says(), out)


def test_missing_prediction_raises_error(benchmark):
    data = open_dataset(benchmark, "commits")
    with pytest.raises(CorpusError, match="7 tasks of the split have no prediction"):
        run.score(run.selected(data, "cr_test"), {}, codebleu=False)


def test_damaged_predictions_are_named_by_line(tmp_path):
    (tmp_path / "p.jsonl").write_text('{"id": "x", "prediction": ""}\n{"id": 1}\n')
    with pytest.raises(CorpusError, match="line 2: not a prediction"):
        run.predictions(tmp_path / "p.jsonl")


def test_digest_depends_on_tasks(benchmark):
    data = open_dataset(benchmark, "commits")
    whole = run.digest(run.selected(data, "cr_test"))
    assert whole == run.digest(reversed(list(run.selected(open_dataset(benchmark, "snapshots"), "cr_test"))))
    assert whole != run.digest(run.selected(data, "cr_test", most=2))


# --- the commands -------------------------------------------------------------------------------------------------


def call(*words: object) -> str:
    done = CliRunner().invoke(repopeft_app, list(map(str, words)))
    if done.exception is not None:
        raise done.exception
    return done.output


def test_build_run_and_score(tmp_path, mirror, tiny_folder):
    for name in ("own/a", "own/b", "own/ood"):
        repo = Repo(mirror, name)
        repo.commit({"LICENSE": MIT})
        grow(repo, 3)
    (tmp_path / "list.txt").write_text("own/a\nown/b  # a comment\nown/missing\n")
    (tmp_path / "ood.txt").write_text("own/ood\n")
    data = tmp_path / "data"
    said = call("build", "--list", tmp_path / "list.txt", "--ood", tmp_path / "ood.txt", "--mirror", mirror,
                "--out", data, "--assign", "cr_test", "--workers", 1)  # fmt: skip
    assert "3 repositories, 9 kept commits; 1 skipped" in said
    assert (
        "commits/qna/cr_test: 6" in said and "ood/qna/ood_test: 3" in said and "skipped own/missing: not found" in said
    )

    out = tmp_path / "base.json"
    words = ("run", "--data", data, "--split", "cr_test", "--method", "base", "--model", tiny_folder, "--json", out)
    call(*words, "--no-codebleu", "--most", 2)
    made = json.loads(out.read_text())
    assert made["manifest"]["tasks"] == {"own/a": 2, "own/b": 2}
    assert made["manifest"]["weights"]["base"]
    assert {row["name"] for row in made["rows"]} == {
        f"{metric}/cr_test{end}" for metric in ("exact_match", "edit_similarity") for end in ("", "/repository")
    }

    right, wrong = tmp_path / "right.jsonl", tmp_path / "wrong.jsonl"
    tasks = list(open_dataset(data, "commits").tasks("cr_test"))
    for file, answer in ((right, lambda t: t.target), (wrong, lambda t: "nothing")):
        file.write_text("".join(json.dumps({"id": t.id, "prediction": answer(t)}) + "\n" for t in tasks))
    scored = tmp_path / "scored.json"
    call(
        "score",
        "--data",
        data,
        "--split",
        "cr_test",
        "--predictions",
        right,
        "--against",
        wrong,
        "--strict",
        "--json",
        scored,
    )
    found = json.loads(scored.read_text())
    rows = {(row["name"], row["method"]): row["value"] for row in found["rows"]}
    assert rows["exact_match/cr_test/strict", "right"] == rows["codebleu/cr_test/strict", "right"] == 1.0
    assert rows["exact_match/cr_test/strict", "right - wrong"] == 1.0
    assert found["manifest"]["p"]["exact_match/cr_test/strict"] == 0.5  # two repositories can't say more
    assert found["manifest"]["data"]["strict"] is True and len(found["manifest"]["predictions"]) == 2


def test_assert_command_builds_runs_scores_and_continues(tmp_path, mirror, tiny_folder, monkeypatch):
    for name in ("own/a", "own/b"):
        repo = Repo(mirror, name)
        repo.commit({"LICENSE": MIT})
        grow(repo, 3)

    class Again(methods.Base):
        name = "again"

    monkeypatch.setitem(methods.METHODS, "again", lambda model, mirror: Again())
    (tmp_path / "list.txt").write_text("own/a\nown/b\n")
    out, work = tmp_path / "assert.json", tmp_path / "work"

    def made(*words: str) -> dict:
        bench_assert(tmp_path / "list.txt", mirror, work, str(tiny_folder), *words, 2, 1, False, out)
        return json.loads(out.read_text())

    found = made("again")
    rows = {(row["name"], row["method"]): row["value"] for row in found["rows"]}
    assert rows["exact_match/cr_test", "again - base"] == rows["exact_match/cr_test/strict", "again - base"] == 0.0
    assert found["manifest"]["p"]["exact_match/cr_test again - base"] == 1.0
    assert found["manifest"]["tasks"] == 4 and sorted(found["manifest"]["repositories"]) == ["own/a", "own/b"]
    monkeypatch.setattr(Generator, "predict", None)  # would fail if a task were predicted again
    assert made("again")["rows"] == found["rows"]
    with pytest.raises(CorpusError, match="Unknown method magic"):
        made("magic")


def test_unknown_method_is_reported(benchmark, tmp_path):
    with pytest.raises(CorpusError, match=r"Unknown method magic\. Known methods: base, memory"):
        call("run", "--data", benchmark, "--split", "cr_test", "--method", "magic", "--json", tmp_path / "x.json")


def test_commands_do_not_import_torch():
    code = (
        "import sys, c2l_lab.benchmarks.repopeft.cli\n"
        "heavy = {'torch', 'transformers', 'pyarrow', 'numpy', 'codebleu'} & set(sys.modules)\n"
        "sys.exit(f'loaded: {sorted(heavy)}' if heavy else 0)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr


def test_rows_of_a_run_without_a_second_repository_are_valid_json(tmp_path):
    from c2l_lab.benchmarks import stats

    stats.write(tmp_path / "x.json", {}, compare.rows("m", "x", {"a": [1.0]}, ""))
    assert "NaN" not in (tmp_path / "x.json").read_text()
