"""Compares vocabulary sizes: bits per byte of models with equal parameters after equal training text.

A larger vocabulary needs fewer tokens but more parameters for its embeddings. Therefore all models have the same total
number of parameters and the same training text in bytes. A run is a folder; a second call continues from it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from c2l_lab.benchmarks.stats import Row
from c2l_lab.corpus import tokenizer as tokenizers
from c2l_lab.corpus.corpus import Document
from c2l_lab.corpus.tokenizer import CodeTokenizer
from c2l_lab.train.base.architecture import Shape
from c2l_lab.train.base.examples import Recipe as ExampleRecipe
from c2l_lab.train.base.training_loop import Recipe, Session, Trainer
from c2l_lsp.errors import TrainingError

HEAD = 64
DECAY = 0.25
"""Share of the steps in which the learning rate decays to 0."""

_ASPECT = 43.0  # width per layer of the shipped model
_SAMPLE = 8e6  # characters of training text of a tokenizer


@dataclass(frozen=True)
class Amounts:
    """Parameters of each model, bytes of training text, tokens per row, rows per step, and learning rate."""

    weights: float = 6.8e6
    text: float = 4e6
    length: int = 512
    rows: int = 16
    rate: float = 6e-3
    compiled: bool = True


def per_layer(hidden: int) -> int:
    """Parameters of one layer of width `hidden` in `shape_for`: projections, biases and norms."""
    kv = HEAD * _kv_heads(hidden)
    ffn = 3 * hidden
    return hidden * (2 * hidden + 2 * kv + 3 * ffn) + (hidden + 2 * kv) + 2 * hidden


def shape_for(vocabulary: int, weights: float) -> Shape:
    """The shape whose number of parameters, embeddings included, is nearest to `weights`.

    On ties, the one with the usual proportions.

    TrainingError if the embeddings alone need more.
    """
    found: list[tuple[float, Shape]] = []
    for hidden in range(HEAD, 1025, HEAD):
        left = weights - vocabulary * hidden
        layers = round(left / per_layer(hidden))
        if layers < 1:
            continue
        miss = abs(left - layers * per_layer(hidden)) / weights
        shape = Shape(hidden, layers, hidden // HEAD, _kv_heads(hidden), 3 * hidden)
        found.append((0.5 * abs(math.log(hidden / layers / _ASPECT)) + 10 * miss, shape))
    if not found:
        raise TrainingError(f"The embeddings of {vocabulary} entries use all of {weights / 1e6:.1f}M parameters.")
    return min(found, key=lambda one: one[0])[1]


def _kv_heads(hidden: int) -> int:
    heads = hidden // HEAD
    return next(count for count in (2, 1) if heads % count == 0)


def measure(
    entries: int,
    train: Sequence[Document],
    tune: Sequence[Document],
    work: Path,
    amounts: Amounts,
    say: Callable[[str], None],
) -> list[Row]:
    """The rows of one tokenizer: bytes per token, parameters, and bits per byte of a model trained with it."""
    folder = work / f"tokenizer-{entries}"
    if not (folder / "tokenizer.json").is_file():
        step = max(1, round(sum(len(document.text) for document in train) / _SAMPLE))
        tokenizers.save(tokenizers.train_tokenizer((d.text for d in train[::step]), entries), folder)
    made = CodeTokenizer(folder)
    per_token = _bytes_per_token(made, tune)
    shape = shape_for(entries, amounts.weights)
    recipe = Recipe(
        shape, made.vocabulary, ExampleRecipe(amounts.length, fim=0.0), rows=amounts.rows, accumulate=1,
        rate=amounts.rate, warmup=20,
    )  # fmt: skip
    trainer = Trainer(work / f"run-{entries}", recipe, train, made, tune)
    steps = max(4, round(amounts.text / per_token / (amounts.rows * amounts.length)))
    falling = round(steps * DECAY)
    say(f"{entries} entries: {per_token:.3f} bytes per token, {shape}, {steps} steps")
    plain = Session(minutes=1e9, evaluate_minutes=1e9, save_minutes=10.0, compiled=amounts.compiled)
    if trainer.decay_from is None:
        trainer.train(Session(**{**vars(plain), "steps": max(0, steps - falling - trainer.step)}))
    found = trainer.train(Session(**{**vars(plain), "decay_steps": falling}))
    weights = sum(p.numel() for p in trainer.model.parameters())
    name = f"{entries // 1024}k" if entries % 1024 == 0 else str(entries)
    return [
        Row("bits_per_byte", name, found["bits_per_byte"], unit="bit/byte"),
        Row("bytes_per_token", name, per_token, unit="byte"),
        Row("weights", name, float(weights)),
        Row("layers", name, float(shape.layers)),
        Row("width", name, float(shape.hidden)),
    ]


def _bytes_per_token(tokenizer: CodeTokenizer, documents: Sequence[Document]) -> float:
    texts = [document.text for document in documents]
    return sum(len(text.encode()) for text in texts) / max(1, sum(map(len, tokenizer.encode_batch(texts))))
