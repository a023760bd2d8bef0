from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import typer
from c2l_lab.corpus.cli import corpus_app
from c2l_lab.train.cli import train_app
from typer.testing import CliRunner

from tests.support.training_text import MIT, MakeRepository, module

APP = typer.Typer()
APP.add_typer(corpus_app, name="corpus")
APP.add_typer(train_app, name="train")


def test_importing_the_commands_does_not_load_torch() -> None:
    code = (
        "import sys, c2l_lab.train.cli, c2l_lab.corpus.cli; "
        "sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_commands_from_repositories_to_a_model(tmp_path: Path, make_repository: MakeRepository) -> None:
    names = ("alpha", "beta", "gamma", "delta", "epsilon")
    make_repository("good/one", {"LICENSE": MIT, **{f"{n}.py": module(n, i) for i, n in enumerate(names)}})
    (tmp_path / "list.txt").write_text("good/one\nun/known  # not there\n")

    def call(*arguments: object) -> str:
        result = CliRunner().invoke(APP, [str(word) for word in arguments], catch_exceptions=False)
        assert result.exit_code == 0, result.output
        return result.output

    corpus, tokens, run, model = (tmp_path / name for name in ("corpus", "tokens", "run", "model"))
    output = call("corpus", "build", "--list", tmp_path / "list.txt", "--mirror", tmp_path / "mirror", "--out", corpus,
                "--workers", 1)  # fmt: skip
    assert "skipped un/known: not found" in output
    assert "licence MIT" in call("corpus", "stats", corpus)
    arguments = ("corpus", "commits", "--list", tmp_path / "list.txt", "--mirror", tmp_path / "mirror", "--out", corpus)
    found = CliRunner().invoke(APP, [*map(str, arguments), "--workers", "1"])
    assert "fewer than two commits" in str(found.exception)
    assert "bytes per token" in call("train", "tokenizer", "--corpus", corpus, "--out", tokens, "--vocabulary", 512,
                                     "--measure", corpus)  # fmt: skip
    assert "tokens in 1 files" in call("corpus", "tokens", corpus, "--tokenizer", tokens)
    call("train", "base", "--corpus", corpus, "--tokenizer", tokens, "--out", run, "--size", "tiny", "--steps", 2,
         "--length", 64, "--rows", 2, "--no-compiled", "--tune", corpus)  # fmt: skip
    assert "2 steps" in call("train", "export", "--run", run, "--tokenizer", tokens, "--corpus", corpus, "--out", model)
    assert (model / "model.safetensors").exists()
    call("train", "split", run, "--out", tmp_path / "parts")
    call("train", "join", tmp_path / "parts", "--out", tmp_path / "again")
    assert (tmp_path / "again" / "run.json").read_bytes() == (run / "run.json").read_bytes()
