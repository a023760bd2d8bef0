"""Loads the folders that need no transformers' modelling code: the engine is up in half the time and memory then.

That is a folder of a Llama model with ordinary rotary positions, full attention, weights in one safetensors file and a
plain fast tokenizer, as `train base` writes it. Everything else is `base.load`'s (a Qwen2 model too: transformers gives
it a tokenizer of its own). The digest is the same either way, so states and adapters fit.
"""

from __future__ import annotations

import time
from pathlib import Path

import msgspec
import torch
import transformers
from safetensors import SafetensorError
from safetensors.torch import load_file

from c2l_lsp.config import Model as ModelSettings
from c2l_lsp.model.lm import base
from c2l_lsp.model.lm.llama import ARCHITECTURE, Config, LlamaLM
from c2l_lsp.model.runtime import hardware

_TOKENIZER = "PreTrainedTokenizerFast"  # all of it is in tokenizer.json


def load(settings: ModelSettings) -> base.BaseModel:
    """The model the settings name: ours where its folder allows it, else transformers'. ModelError as there."""
    started = time.perf_counter()
    settings = base.resolve_auto(settings)
    where = base.locate(settings)[0]
    config = read_config(Path(where))
    if config is None:
        return base.load(settings)
    device = hardware.pick_device(settings.device)
    dtype = hardware.pick_dtype(settings.dtype, device)
    try:
        tokenizer = transformers.PreTrainedTokenizerFast.from_pretrained(where, local_files_only=True)
        lm = _filled(config, Path(where) / "model.safetensors", dtype).to(device)
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        raise base.load_error(settings, where, error) from error
    return base.build_base_model(settings, lm, tokenizer, device, dtype, started, ARCHITECTURE)


def read_config(folder: Path) -> Config | None:
    """The configuration of a folder this module can load; None for any other."""
    try:
        config = msgspec.json.decode((folder / "config.json").read_bytes(), type=Config)
        tokenizer = msgspec.json.decode((folder / "tokenizer_config.json").read_bytes())["tokenizer_class"]
    except (OSError, KeyError, TypeError, msgspec.DecodeError):
        return None
    whole = all((folder / name).is_file() for name in ("model.safetensors", "tokenizer.json"))
    return config if whole and config.is_supported and tokenizer == _TOKENIZER else None


def _filled(config: Config, path: Path, dtype: torch.dtype) -> LlamaLM:
    """The model with its weights copied: a file that is mapped and then cut short would end the process."""
    with torch.device("meta"):
        lm = LlamaLM(config)
    weights = {name: tensor.to(dtype, copy=True) for name, tensor in load_file(path).items()}
    if config.tie_word_embeddings:
        weights["lm_head.weight"] = weights["model.embed_tokens.weight"]
    lm.load_state_dict(weights, strict=True, assign=True)
    if config.tie_word_embeddings:
        lm.lm_head.weight = lm.model.embed_tokens.weight
    return lm
