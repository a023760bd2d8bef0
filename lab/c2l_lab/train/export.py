"""Exporting a run as a model folder for transformers and the engine: weights, tokenizer, model card, manifest."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import torch

from c2l_lab.corpus import tokenizer
from c2l_lab.corpus.corpus import read_manifest
from c2l_lab.train import checkpoint
from c2l_lab.train.base import architecture, training_loop, warm_start
from c2l_lab.train.base.examples import Recipe as ExampleRecipe
from c2l_lab.train.curve import read_log
from c2l_lsp.errors import StorageError, TrainingError


def read_recipe(run: Path) -> training_loop.Recipe:
    """Return the recipe of a run. Raises TrainingError if `run` is not a training run."""
    try:
        plain: dict[str, Any] = json.loads((run / "run.json").read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise TrainingError(f"{run} contains no training run: {error}.") from error
    shape, examples = architecture.Shape(**plain.pop("shape")), ExampleRecipe(**plain.pop("examples"))
    return training_loop.Recipe(shape=shape, examples=examples, **plain)


def load_model(run: Path, averaged: bool = False) -> tuple[torch.nn.Module, dict[str, Any]]:
    """Return the model of the newest checkpoint in fp32 (the EMA weights if `averaged`), and its state."""
    folder = checkpoint.newest(run)
    if folder is None:
        raise TrainingError(f"{run} contains no checkpoint yet.")
    recipe = read_recipe(run)
    weights, _, state = checkpoint.load(folder)
    names = {name.removeprefix("ema."): w for name, w in weights.items() if name.startswith("ema.") == averaged}
    model = architecture.make_model(recipe.shape, recipe.vocabulary, 0)
    checkpoint.restore(model, names)
    return model, state


def as_llama(model: torch.nn.Module, positions: int, fills: bool) -> torch.nn.Module:
    """Return an equivalent model with the architecture `llama` (with biases, zero for the output projections).

    transformers 5 loads Qwen's own tokenizer for every folder of type `qwen2`, which would tokenise differently from
    training. For `llama` it loads tokenizer.json. `positions` is the longest row in training. `fills` tells the engine
    whether to use FIM prompts.
    """
    from transformers import LlamaConfig, LlamaForCausalLM

    old: Any = model.config
    shared = {name: getattr(old, name) for name in _SHARED}
    order: Any = "joined" if fills else False
    config = LlamaConfig(attention_bias=True, max_position_embeddings=positions, c2l_fim=order, **shared)
    llama = LlamaForCausalLM(config)
    weights = {name: value.detach() for name, value in model.named_parameters()}
    for name, value in llama.named_parameters():
        if name.endswith("o_proj.bias"):
            weights[name] = torch.zeros_like(value)
    checkpoint.restore(llama, weights)
    return llama


_SHARED = (
    "vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads", "intermediate_size",
    "tie_word_embeddings", "rms_norm_eps", "rope_parameters", "bos_token_id", "eos_token_id",
    "pad_token_id",
)  # fmt: skip


def training_manifest(run: Path, corpus: Path, state: dict[str, Any]) -> dict[str, Any]:
    """Return data, tokens, time and evaluation of a run as JSON values. Totals include the initial model's training."""
    data, lines = read_manifest(corpus), read_log(run / "log.jsonl")
    measured: dict[str, Any] = {}
    for line in lines:
        measured |= {k: v for k, v in line.items() if k not in _RUNNING | {"standard_error"}}
    before = warm_start.read_parent_manifest(run)
    speeds = sorted(line["tokens_per_s"] for line in lines if "tokens_per_s" in line)
    recipe = json.loads((run / "run.json").read_text("utf-8"))
    return {
        "recipe": recipe,
        "steps": state["step"] + before.get("steps", 0),
        "tokens": state["tokens"] + before.get("tokens", 0),
        "passes_over_the_corpus": _passes(state, data),
        "seconds": round(state["seconds"]) + before.get("seconds", 0),
        "tokens_per_s_median": speeds[len(speeds) // 2] if speeds else None,
        "decayed": state["decay_from"] is not None,
        "device": state.get("device", _CPU),
        "evaluation": measured,
        "data": {
            "files": data["files"],
            "bytes": data["bytes"],
            "repositories": [
                {
                    key: repository[key]
                    for key in ("name", "commit", "licence", "files", "bytes", "tokens")
                    if key in repository
                }
                for repository in data["repositories"]
            ],
            "skipped": data["skipped"],
        },
        "begun_from": before or None,
    }


def prefers_fim(manifest: dict[str, Any]) -> bool:
    """Return whether FIM completions were at least as accurate as completions from the prefix alone."""
    found = manifest["evaluation"]
    return bool(found.get("rest_of_line_exact", 1.0) >= found.get("rest_of_line_exact_prefix_only", 0.0))


_RUNNING = {"step", "tokens", "loss", "norm", "tokens_per_s", "fraction_of_peak", "epoch", "rate"}


_CPU = "shared CPU cores"


def _passes(state: dict[str, Any], data: dict[str, Any]) -> float:
    streams = state["streams"]  # one per process; processes may be in different epochs
    seen = {(stream["epoch"], name) for stream in streams for name in stream["seen"]}  # resharded states overlap
    epochs = sum(stream["epoch"] for stream in streams) / len(streams)
    return float(round(epochs + len(seen) / max(1, data["files"]), 2))


def model_card(manifest: dict[str, Any], weights: int, name: str) -> str:
    """Return the model card (README.md) of an export."""
    recipe, data = manifest["recipe"], manifest["data"]
    licences = Counter(repository["licence"] for repository in data["repositories"])
    facts = {
        "name": name,
        "device": manifest.get("device", _CPU),
        "weights": f"{weights / 1e6:.1f}",
        **recipe["shape"],
        "vocabulary": recipe["vocabulary"],
        "length": recipe["examples"]["length"],
        "optimiser": recipe["optimiser"].capitalize(),
        "rate": recipe["rate"],
        "tokens": f"{manifest['tokens'] / 1e6:.1f}",
        "steps": manifest["steps"],
        "origin": _origin(manifest),
        "passes": f"{manifest['passes_over_the_corpus']:.2f}",
        "minutes": f"{manifest['seconds'] / 60:.0f}",
        "speed": f"{manifest['tokens_per_s_median'] or 0:.0f}",
        "schedule": "warm-up, plateau, decay to zero" if manifest["decayed"] else "warm-up and plateau, no decay yet",
        "files": data["files"],
        "megabytes": f"{data['bytes'] / 1e6:.0f}",
        "repositories": len(data["repositories"]),
        "licences": ", ".join(f"{name} {count}" for name, count in licences.most_common()),
        "filling": "" if prefers_fim(manifest) else _NOT_FILLING,
        "rows": "\n".join(f"| {_LABELS.get(key, key)} | {value} |" for key, value in manifest["evaluation"].items()),
    }
    return _CARD.format(**facts)


def _origin(manifest: dict[str, Any]) -> str:
    before = manifest["begun_from"]
    if not before:
        return "From scratch"
    return f"Continued from a model of {before['tokens'] / 1e6:.1f} million tokens, which are included below"


_LABELS = {
    "nat_per_token": "loss, nat per token",
    "bits_per_byte": "bits per byte",
    "middle_nat_per_token": "loss of the middle, nat per token",
    "rest_of_line_exact": "rest of a line exact, filled in the middle (greedy, 256 tokens of context)",
    "rest_of_line_exact_error": "its standard error",
    "rest_of_line_exact_prefix_only": "rest of a line exact, from the text before only (greedy, 256 tokens)",
    "rest_of_line_exact_prefix_only_error": "its standard error",
    "asked": "lines scored",
}


_NOT_FILLING = """- It does not fill in the middle yet (see the table). Prompt it with the text before the cursor alone.
  `c2l_fim` in config.json tells the engine so.
"""

_CARD = """---
license: apache-2.0
language: [code]
pipeline_tag: text-generation
tags: [code, python, fill-in-the-middle]
---
# {name}

A Python code language model of {weights} million weights, small enough to ship with a language server and to run on the
CPU of a laptop. It is meant to be adapted to a repository. By itself it knows common Python and little else.

## Architecture

| | |
|---|---|
| computes | the same as a Qwen2 model; saved as `llama` with attention biases, because transformers 5 reads the tokenizer of every `qwen2` folder as Qwen's own |
| hidden size, layers | {hidden}, {layers} |
| attention heads | {heads}, {kv_heads} for keys and values |
| feed-forward size | {ffn} |
| embeddings | tied |
| rotary base | 10000 |
| tokenizer | byte-level BPE, {vocabulary} entries; a line break with its indentation is one token |
| context in training | 256 to {length} tokens |

Fill-in-the-middle puts the text after the hole first:
`<|fim_prefix|><|fim_suffix|>text after<|fim_middle|>text before`. The answer continues the text before and ends with
`<|endoftext|>`. A prompt should not end inside a word: leave the last word out and force the answer to begin with it
(token healing), as the engine does.

## Training

{origin}, with `c2l-lab corpus build`, `c2l-lab train tokenizer` and `c2l-lab train base`.

| | |
|---|---|
| tokens, steps | {tokens} million, {steps} |
| passes over the corpus | {passes} |
| time | {minutes} minutes on {device} |
| speed | {speed} tokens a second, median |
| precision | bf16 |
| optimiser | {optimiser} for the layers' matrices, AdamW for the rest |
| learning rate | {rate}; {schedule} |
| fill-in-the-middle | half of the examples |
| packing | several files a row; attention does not cross files |

`curve.png` is the loss. `training_manifest.json` has everything else.

## Data

{files} Python files, {megabytes} MB, from {repositories} permissively licensed repositories ({licences}), newest commit
only. The standard library is one of them. Excluded: files that are generated, vendored, minified, very long, invalid
Python 3 or invalid UTF-8, files that seem to hold a secret, and near-duplicates, including those of files in evaluation
repositories. `training_manifest.json` names every repository with its commit and licence.

## Evaluation

On repositories of other owners that the model was not trained on. They were used to choose step sizes.

| | |
|---|---|
{rows}

## Limits

{filling}- Python only.
- Trained on few tokens by today's measure: short, common continuations succeed far more often than whole functions, and
  the model invents names.
- Prompts longer than {length} tokens are outside its training.
- It can repeat idioms of its training data. It had no instruction or safety training.

## Licence

Apache-2.0 for the weights. The training files keep the licences named in the manifest.
"""  # noqa: E501 - a table row is one line


def export(run: Path, tokenizer_folder: Path, corpus: Path, out: Path, averaged: bool = False) -> dict[str, Any]:
    """Export the newest checkpoint of `run` in bf16 to the folder `out`; return its manifest.

    Raises TrainingError if there is no run or checkpoint, and StorageError if the folder cannot be written.
    """
    model, state = load_model(run, averaged)
    recipe = read_recipe(run)
    manifest = training_manifest(run, corpus, state)
    temporary = out.with_name(out.name + ".part")
    try:
        shutil.rmtree(temporary, ignore_errors=True)
        # The tokenizer is saved first, so that the model's config cannot affect its class.
        tokenizer.save(tokenizer.CodeTokenizer(tokenizer_folder).plain(), temporary, recipe.examples.length)
        llama: Any = as_llama(model, recipe.examples.length, prefers_fim(manifest)).to(torch.bfloat16)
        llama.save_pretrained(temporary)
        (temporary / "training_manifest.json").write_text(json.dumps(manifest, indent=1) + "\n", "utf-8")
        (temporary / "README.md").write_text(
            model_card(manifest, sum(p.numel() for p in model.parameters()), out.name), "utf-8"
        )
        if (run / "curve.png").exists():
            shutil.copy(run / "curve.png", temporary / "curve.png")
        shutil.rmtree(out, ignore_errors=True)
        out.parent.mkdir(parents=True, exist_ok=True)
        temporary.rename(out)
    except OSError as error:
        shutil.rmtree(temporary, ignore_errors=True)
        raise StorageError(f"The model cannot be written to {out}: {error}.") from error
    return manifest
