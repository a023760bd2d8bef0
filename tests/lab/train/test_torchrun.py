from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from c2l_lab.corpus.corpus import Document
from c2l_lab.corpus.tokenizer import CodeTokenizer
from c2l_lab.train import checkpoint
from c2l_lab.train.base import training_loop
from c2l_lab.train.export import read_recipe

SCRIPT = Path(__file__).parents[2] / "support" / "two_training_processes.py"


@pytest.fixture
def texts(tmp_path: Path, documents: list[Document]) -> Path:
    folder = tmp_path / "texts"
    folder.mkdir()
    for number, document in enumerate(documents[:24]):
        (folder / f"{number:02}.py").write_text(document.text, "utf-8")
    return folder


def torchrun(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-W", "ignore", "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    return subprocess.run(
        [*command, *map(str, arguments)], capture_output=True, text=True, timeout=240, check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip


def test_two_processes_with_different_clocks_train_one_model(
    tmp_path: Path, texts: Path, tokenizer_folder: Path, tokenizer: CodeTokenizer, documents: list[Document]
) -> None:
    """Both save and stop together and see different files, and a single process can resume the run.

    Regression: each process decided by its own clock when to save, and they deadlocked.
    """
    run = tmp_path / "run"
    for sessions in (1, 2):  # in the second session, both processes read the same checkpoint
        completed = torchrun(SCRIPT, run, tokenizer_folder, texts)
        # torchrun's own report stands at the end; why a process ended stands before it.
        assert completed.returncode == 0, f"{completed.stderr[:4000]}\n…\n{completed.stderr[-2000:]}"
        newest = checkpoint.newest(run)
        assert newest is not None and newest.name == f"step-{6 * sessions:07d}"
    weights, _, state = checkpoint.load(newest)
    first, second = (set(stream["seen"]) for stream in state["streams"])
    assert first and second and not first & second
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text("utf-8").splitlines()]
    assert any("bits_per_byte" in line for line in lines)
    single = training_loop.Trainer(run, read_recipe(run), documents, tokenizer)
    assert single.step == 12
    torch.testing.assert_close(dict(single.model.named_parameters()), weights, rtol=0, atol=0)
    value, _, _ = single.train_step(training_loop.packed_loss(single.model), 0)
    assert value < 7
