from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from c2l_lab.corpus.corpus import Document
from c2l_lab.corpus.tokenizer import CodeTokenizer
from c2l_lab.train import checkpoint, export
from c2l_lab.train.base import architecture, training_loop, warm_start
from c2l_lab.train.base.examples import Recipe as ExampleRecipe
from c2l_lab.train.base.examples import to_batch
from c2l_lab.train.base.objective import packed_loss, rest_of_line, to_tensors
from safetensors.torch import load_file, save_file

from c2l_lsp.errors import CheckpointError, StorageError, TrainingError

RECIPE = training_loop.Recipe(
    shape=architecture.SHAPES["tiny"], vocabulary=512, examples=ExampleRecipe(length=64, seed=1, buffer=20), rows=4,
    accumulate=2, rate=1e-2, warmup=4, ema=0.9,
)  # fmt: skip
QUICK_SESSION = training_loop.Session(compiled=False, tune_rows=8)


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def _losses(run: Path, documents: list[Document], tokenizer: CodeTokenizer, steps: int) -> list[float]:
    trainer = training_loop.Trainer(run, RECIPE, documents, tokenizer)
    loss = packed_loss(trainer.model)
    made = [trainer.train_step(loss, 0)[0] for _ in range(steps)]
    trainer.save()
    return made


def test_attention_does_not_cross_packed_files(tokenizer: CodeTokenizer) -> None:
    model = architecture.make_model(RECIPE.shape, 512, 0).eval()
    loss = packed_loss(model)
    first, second = list(range(10, 40)), list(range(50, 70))
    both = loss(*to_tensors(to_batch([[first, second]], 64, 0), torch.device("cpu")))
    alone = sum(loss(*to_tensors(to_batch([[one]], 64, 0), torch.device("cpu"))) for one in (first, second))
    torch.testing.assert_close(both, alone, rtol=1e-3, atol=1e-3)  # bf16 sums are in another order


def test_two_sessions_equal_one_bit_for_bit(
    tmp_path: Path, documents: list[Document], tokenizer: CodeTokenizer
) -> None:
    whole = _losses(tmp_path / "one", documents, tokenizer, 8)
    parts = _losses(tmp_path / "two", documents, tokenizer, 5) + _losses(tmp_path / "two", documents, tokenizer, 3)
    assert whole == parts
    one, two = (load_file(checkpoint.newest(tmp_path / n) / "model.safetensors") for n in ("one", "two"))  # type: ignore[operator]
    assert all(torch.equal(one[name], two[name]) for name in one)


@pytest.mark.parametrize("optimiser", ["muon", "adamw"])
def test_run_reduces_the_loss_evaluates_and_plots(
    tmp_path: Path, documents: list[Document], tokenizer: CodeTokenizer, optimiser: str
) -> None:
    recipe = replace(RECIPE, optimiser=optimiser)
    trainer = training_loop.Trainer(tmp_path, recipe, documents, tokenizer, documents[:6])
    found = trainer.train(replace(QUICK_SESSION, steps=30, rest_of_line=2))
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    losses = [line["loss"] for line in lines if "loss" in line]
    assert losses[-1] < losses[0] - 0.3
    assert {
        "nat_per_token",
        "bits_per_byte",
        "middle_nat_per_token",
        "rest_of_line_exact",
        "rest_of_line_exact_prefix_only",
    } <= set(found)
    assert (tmp_path / "curve.png").read_bytes()[:4] == b"\x89PNG"


def test_decay_session_reduces_the_rate_to_zero(
    tmp_path: Path, documents: list[Document], tokenizer: CodeTokenizer
) -> None:
    training_loop.Trainer(tmp_path, RECIPE, documents, tokenizer).train(replace(QUICK_SESSION, steps=3))
    longer = replace(RECIPE, examples=replace(RECIPE.examples, length=96), rows=2)
    trainer = training_loop.Trainer(tmp_path, longer, documents, tokenizer)
    trainer.train(replace(QUICK_SESSION, decay_steps=4))
    assert (trainer.step, trainer.decay_from) == (7, 3)
    assert 0 < trainer.optimisers[0].param_groups[0]["lr"] < RECIPE.rate / 4


@pytest.mark.parametrize(("step", "factor"), [(0, 0.1), (9, 1.0), (50, 1.0), (100, 0.8), (103, 0.2), (200, 0.0)])
def test_rate_schedule(step: int, factor: float) -> None:
    assert training_loop.rate_factor(step, 10, 100, 4) == pytest.approx(factor)


def test_run_with_another_shape_or_recipe_raises(
    tmp_path: Path, documents: list[Document], tokenizer: CodeTokenizer
) -> None:
    training_loop.Trainer(tmp_path, RECIPE, documents, tokenizer).save()
    with pytest.raises(CheckpointError, match="another shape"):
        training_loop.Trainer(tmp_path, replace(RECIPE, shape=replace(RECIPE.shape, ffn=128)), documents, tokenizer)
    with pytest.raises(TrainingError, match="another rate"):
        training_loop.Trainer(tmp_path, replace(RECIPE, rate=1e-3), documents, tokenizer)
    with pytest.raises(TrainingError, match="512 entries"):
        training_loop.Trainer(tmp_path, replace(RECIPE, vocabulary=600), documents, tokenizer)


def _damage_file(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(b"short")


def _damage_shape(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    weights["model.norm.weight"] = torch.ones(3)
    save_file(weights, folder / "model.safetensors")


@pytest.mark.parametrize(
    ("damage", "words"), [(_damage_file, "incomplete or damaged"), (_damage_shape, r"model\.norm\.weight is \(3,\)")]
)
def test_damaged_checkpoint_raises_with_the_tensor_name(
    tmp_path: Path, documents: list[Document], tokenizer: CodeTokenizer, damage: Any, words: str
) -> None:
    folder = training_loop.Trainer(tmp_path, RECIPE, documents, tokenizer).save()
    damage(folder)
    with pytest.raises(CheckpointError, match=words):
        training_loop.Trainer(tmp_path, RECIPE, documents, tokenizer)


def test_full_disk_keeps_the_previous_checkpoint(
    tmp_path: Path, documents: list[Document], tokenizer: CodeTokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = training_loop.Trainer(tmp_path, RECIPE, documents, tokenizer)
    previous = trainer.save()

    def full(*args: object, **kwargs: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint, "save_file", full)
    trainer.step += 1
    with pytest.raises(StorageError, match="No space left"):
        trainer.save()
    assert checkpoint.newest(tmp_path) == previous
    assert list(tmp_path.glob("*.part")) == []


def test_session_is_saved_before_the_rest_of_line_evaluation(
    tmp_path: Path, documents: list[Document], tokenizer: CodeTokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Regression: an interruption of the slow evaluation lost the session."""
    trainer = training_loop.Trainer(tmp_path, RECIPE, documents, tokenizer, documents[:2])

    def interrupt(count: int) -> dict[str, float]:
        raise KeyboardInterrupt(count)

    monkeypatch.setattr(trainer, "evaluate_rest_of_line", interrupt)
    with pytest.raises(KeyboardInterrupt):
        trainer.train(replace(QUICK_SESSION, steps=2, rest_of_line=3))
    folder = checkpoint.newest(tmp_path)
    assert folder is not None and folder.name == "step-0000002"


def test_only_three_checkpoints_are_kept(tmp_path: Path, documents: list[Document], tokenizer: CodeTokenizer) -> None:
    trainer = training_loop.Trainer(tmp_path, RECIPE, documents, tokenizer)
    for _ in range(5):
        trainer.step += 1
        trainer.save()
    assert len(list(tmp_path.glob("step-*"))) == 3


def test_rest_of_line_returns_the_share_of_exact_matches(documents: list[Document], tokenizer: CodeTokenizer) -> None:
    model = architecture.make_model(RECIPE.shape, 512, 0).eval()
    found = rest_of_line(model, documents, tokenizer, count=3, context=48, device=torch.device("cpu"))
    assert found["asked"] == 3
    assert 0 <= found["rest_of_line_exact"] <= 1


def test_export_loads_in_transformers_with_equal_logits(
    tmp_path: Path, documents: list[Document], tokenizer: CodeTokenizer, tokenizer_folder: Path
) -> None:
    from c2l_lab.corpus import corpus as corpus_module
    from transformers import AutoModelForCausalLM, AutoTokenizer

    run, corpus = tmp_path / "run", tmp_path / "corpus"
    training_loop.Trainer(run, RECIPE, documents, tokenizer, documents[:6]).train(replace(QUICK_SESSION, steps=10))
    corpus.mkdir()
    repository = corpus_module.Repository("own/package", "c0ffee", "MIT", len(documents), 1000)
    (corpus / "manifest.json").write_text(
        json.dumps({"files": len(documents), "bytes": 1000, "skipped": {}, "repositories": [vars(repository)]})
    )
    export.export(run, tokenizer_folder, corpus, tmp_path / "model")
    loaded, _ = AutoModelForCausalLM.from_pretrained(tmp_path / "model", output_loading_info=True, dtype=torch.float32)
    trained, _ = export.load_model(run)
    text = documents[0].text[:200]
    ids = AutoTokenizer.from_pretrained(tmp_path / "model")(text, return_tensors="pt")["input_ids"]
    assert ids[0].tolist() == tokenizer.encode(text)
    with torch.no_grad():
        theirs, ours = loaded(ids).logits, trained.to(torch.bfloat16).float()(ids).logits
    torch.testing.assert_close(theirs, ours, rtol=1e-4, atol=1e-4)  # fp32 sums are in another order
    words = (tmp_path / "model" / "README.md").read_text("utf-8")
    assert "From scratch, with" in words
    assert "own/package" in (tmp_path / "model" / "training_manifest.json").read_text("utf-8")
    assert "bits per byte" in words


def _exported(tmp_path: Path, documents: list[Document], tokenizer: CodeTokenizer, tokenizer_folder: Path) -> Path:
    from c2l_lab.corpus import corpus as corpus_module

    training_loop.Trainer(tmp_path / "run", RECIPE, documents, tokenizer, documents[:6]).train(
        replace(QUICK_SESSION, steps=20)
    )
    (tmp_path / "corpus").mkdir()
    repository = corpus_module.Repository("own/package", "c0ffee", "MIT", len(documents), 1000)
    (tmp_path / "corpus" / "manifest.json").write_text(
        json.dumps({"files": len(documents), "bytes": 1000, "skipped": {}, "repositories": [vars(repository)]})
    )
    export.export(tmp_path / "run", tokenizer_folder, tmp_path / "corpus", tmp_path / "model")
    return tmp_path / "model"


def test_warm_start_continues_after_the_documents_of_the_model(
    tmp_path: Path, documents: list[Document], tokenizer: CodeTokenizer, tokenizer_folder: Path
) -> None:
    model = _exported(tmp_path, documents, tokenizer, tokenizer_folder)
    before = json.loads((model / "training_manifest.json").read_text())
    start = warm_start.load(model, tokenizer)
    first = training_loop.Trainer(tmp_path / "more", RECIPE, documents, tokenizer, start=start)
    trained, _ = export.load_model(tmp_path / "run")
    for name, weight in trained.named_parameters():  # exported weights are rounded to bf16
        torch.testing.assert_close(dict(first.model.named_parameters())[name], weight, rtol=1e-2, atol=1e-3)
    assert 0 < before["passes_over_the_corpus"] < 1 or first.stream.state.epoch
    seen = set(training_loop.Trainer(tmp_path / "run", RECIPE, documents, tokenizer).stream.state.seen)
    again = set(start.stream_state(documents, RECIPE.examples.seed).seen)  # documents already seen do not come first
    assert again and len(seen ^ again) <= 1 + len(documents) // 100  # the manifest rounds epochs to hundredths
    assert start.stream_state(documents, RECIPE.examples.seed + 1).seen == []
    first.train(replace(QUICK_SESSION, steps=3))
    second = training_loop.Trainer(tmp_path / "more", RECIPE, documents, tokenizer, start=start)
    assert second.step == 3
    with pytest.raises(TrainingError, match="another begun_from"):
        training_loop.Trainer(tmp_path / "more", RECIPE, documents, tokenizer)
    made = export.export(tmp_path / "more", tokenizer_folder, tmp_path / "corpus", tmp_path / "next")
    assert (made["tokens"], made["steps"]) == (before["tokens"] + first.tokens, 23)
    assert made["begun_from"]["data"]["repositories"][0]["name"] == "own/package"
    assert "Continued from a model of 0.0 million tokens" in (tmp_path / "next" / "README.md").read_text("utf-8")


def test_warm_start_rejects_another_shape_tokenizer_or_origin(
    tmp_path: Path, documents: list[Document], tokenizer: CodeTokenizer, tokenizer_folder: Path
) -> None:
    model = _exported(tmp_path, documents, tokenizer, tokenizer_folder)
    other = replace(RECIPE, shape=replace(RECIPE.shape, ffn=128))
    with pytest.raises(CheckpointError, match="another shape"):
        training_loop.Trainer(tmp_path / "other", other, documents, tokenizer, start=warm_start.load(model, tokenizer))
    plain = json.loads((model / "tokenizer.json").read_text("utf-8"))
    plain["model"]["merges"] = plain["model"]["merges"][:-1]
    (model / "tokenizer.json").write_text(json.dumps(plain), "utf-8")
    with pytest.raises(CheckpointError, match="another tokenizer"):
        warm_start.load(model, tokenizer)
    (model / "training_manifest.json").unlink()
    with pytest.raises(CheckpointError, match="not a complete model exported"):
        warm_start.load(model, tokenizer)
