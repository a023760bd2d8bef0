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
from c2l_lab.train.export import recipe_of

SCRIPT = Path(__file__).with_name("two_training_processes.py")


@pytest.fixture
def texts(tmp_path: Path, documents: list[Document]) -> Path:
    folder = tmp_path / "texts"
    folder.mkdir()
    for number, document in enumerate(documents[:24]):
        (folder / f"{number:02}.py").write_text(document.text, "utf-8")
    return folder


def torchrun(*words: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-W", "ignore", "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    return subprocess.run(
        [*command, *map(str, words)], capture_output=True, text=True, timeout=240, check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip


def test_two_processes_whose_clocks_differ_train_one_model(
    tmp_path: Path, texts: Path, tokenizer_folder: Path, tokenizer: CodeTokenizer, documents: list[Document]
) -> None:
    """They save and stop together, see different files, and one process can go on with what they made.

    Each deciding by its own clock when to save, one waited for the other's streams, the other for gradients, for ever.
    """
    run = tmp_path / "run"
    for legs in (1, 2):  # the second leg reads what the first one wrote, in both processes at once
        done = torchrun(SCRIPT, run, tokenizer_folder, texts)
        assert done.returncode == 0, done.stderr[-2000:]
        newest = checkpoint.newest(run)
        assert newest is not None and newest.name == f"step-{6 * legs:07d}"
    weights, _, state = checkpoint.load(newest)
    first, second = (set(stream["seen"]) for stream in state["streams"])
    assert first and second and not first & second
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text("utf-8").splitlines()]
    assert any("bits_per_byte" in line for line in lines)
    alone = training_loop.Trainer(run, recipe_of(run), documents, tokenizer)
    assert alone.step == 12
    torch.testing.assert_close(dict(alone.model.named_parameters()), weights, rtol=0, atol=0)
    value, _, _ = alone.one_step(training_loop.packed_loss(alone.model), 0)
    assert value < 7
