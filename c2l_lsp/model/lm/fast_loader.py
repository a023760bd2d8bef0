"""Loads plain Llama models without transformers' modelling code, in half the time and memory.

A folder qualifies if it holds a Llama model with ordinary rotary positions and full attention, its weights in one
safetensors file, and a plain fast tokenizer; `c2l-lab train base` writes such folders. Any other model is loaded by
`base.load` (Qwen2 too: transformers gives it a tokenizer class of its own). The digest is the same either way, so
states and adapters remain valid.
"""

from __future__ import annotations

import time
from pathlib import Path

import msgspec
import torch
import transformers
from safetensors.torch import load_file

from c2l_lsp.config import Model as ModelSettings
from c2l_lsp.model.lm import base, model_folder
from c2l_lsp.model.lm.llama import ARCHITECTURE, Config, LlamaLM
from c2l_lsp.model.runtime import hardware

_TOKENIZER = "PreTrainedTokenizerFast"  # tokenizer.json holds all of such a tokenizer


def load(settings: ModelSettings) -> base.BaseModel:
    """Load the model that the settings name, by the fastest way. Raises ModelError as `base.load` does."""
    started = time.perf_counter()
    settings = base.resolve_auto(settings)
    where = base.locate(settings)[0]
    if Path(where).is_dir():
        model_folder.check(Path(where))
    config = read_config(Path(where))
    if config is None:
        return base.load(settings)
    device = hardware.pick_device(settings.device)
    dtype = hardware.pick_dtype(settings.dtype, device)
    with base.foreign_files(settings, where):
        tokenizer = transformers.PreTrainedTokenizerFast.from_pretrained(where, local_files_only=True)
        lm = _load_weights(config, Path(where) / "model.safetensors", dtype).to(device)
        model = base.build_base_model(settings, lm, tokenizer, device, dtype, started, ARCHITECTURE)
        model_folder.require_working(model)
    return model


def read_config(folder: Path) -> Config | None:
    """The configuration of a folder that this module can load; None for any other."""
    try:
        config = msgspec.json.decode((folder / "config.json").read_bytes(), type=Config)
        tokenizer = msgspec.json.decode((folder / "tokenizer_config.json").read_bytes())["tokenizer_class"]
    except (OSError, KeyError, TypeError, msgspec.DecodeError):
        return None
    complete = all((folder / name).is_file() for name in ("model.safetensors", "tokenizer.json"))
    return config if complete and config.is_supported and tokenizer == _TOKENIZER else None


def _load_weights(config: Config, path: Path, dtype: torch.dtype) -> LlamaLM:
    """The model with its weights copied: truncating a memory-mapped file would end the process at the next access."""
    with torch.device("meta"):
        lm = LlamaLM(config)
    weights = {name: tensor.to(dtype, copy=True) for name, tensor in load_file(path).items()}
    if config.tie_word_embeddings:
        weights["lm_head.weight"] = weights["model.embed_tokens.weight"]
    lm.load_state_dict(weights, strict=True, assign=True)
    if config.tie_word_embeddings:
        lm.lm_head.weight = lm.model.embed_tokens.weight
    return lm
