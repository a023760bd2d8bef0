"""Script for torchrun in test_torchrun.py: two processes train one run, and the clock of the second runs faster."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import torch
from c2l_lab.corpus.corpus import Document
from c2l_lab.corpus.tokenizer import CodeTokenizer
from c2l_lab.train.base import architecture, training_loop
from c2l_lab.train.base.examples import Recipe as ExampleRecipe
from c2l_lab.train.devices import Devices


def main(run: Path, tokenizer: Path, texts: Path) -> None:
    torch.set_num_threads(1)
    if os.environ["RANK"] == "1":
        real_monotonic, begun = time.monotonic, time.monotonic()
        time.monotonic = lambda: begun + (real_monotonic() - begun) * 20
    documents = [
        Document(f"{number:016x}", "own/package", path.name, path.read_text("utf-8"))
        for number, path in enumerate(sorted(texts.glob("*.py")))
    ]
    recipe = training_loop.Recipe(
        shape=architecture.SHAPES["tiny"], vocabulary=512, examples=ExampleRecipe(length=64, seed=1, buffer=20), rows=2,
        accumulate=1, rate=1e-2, warmup=4,
    )  # fmt: skip
    trainer = training_loop.Trainer(run, recipe, documents, CodeTokenizer(tokenizer), documents[:2], Devices())
    session = training_loop.Session(
        minutes=5.0, steps=6, save_minutes=0.001, evaluate_minutes=0.001, compiled=False, tune_rows=4
    )
    trainer.train(session)
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
