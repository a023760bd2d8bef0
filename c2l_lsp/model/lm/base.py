"""The frozen base language model: loading by name or folder, tokenizer, hidden states, logits.

A `BaseModel` computes the final normed hidden states of token ids, and the logits of such states. Prompts, adapters and
repositories are handled elsewhere.
"""

from __future__ import annotations

import contextlib
import copy
import hashlib
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import msgspec
import torch
import transformers
from torch import Tensor

from c2l_lsp.config import Model as ModelSettings
from c2l_lsp.cooperative import Slices
from c2l_lsp.errors import ModelError
from c2l_lsp.model.gguf_format import conversion, sources
from c2l_lsp.model.lm import model_folder
from c2l_lsp.model.lm.fim import FimTokens, resolve_fim
from c2l_lsp.model.lm.incremental_tokenizer import IncrementalTokenizer
from c2l_lsp.model.lm.llama import LlamaLM
from c2l_lsp.model.lm.token_healing import TokenBytes, token_bytes_of
from c2l_lsp.model.runtime.hardware import core_count, has_fast_cores, pick_device, pick_dtype, thread_count
from c2l_lsp.model.runtime.int8_model import Int8Model, build_int8_model

AUTO, NANO, SMALL = "auto", "c2l-nano", "c2l-small"
SHIPPED = (NANO, SMALL)
"""Models inside the package, in subfolders of ASSETS."""
ASSETS = Path(__file__).resolve().parents[2] / "assets"

_STEP_WORK = 1 << 35  # multiplications with weights per step of a model of transformers: 0.2 to 0.5 s on one core


@dataclass(frozen=True)
class BaseModel:
    """A causal LM in evaluation mode, with frozen weights.

    `digest` identifies the exact weights; adapters and repository states are bound to it. `max_context` is the number
    of positions the model was trained for.
    """

    id: str
    digest: str
    lm: Any
    tokenizer: Any
    fim: FimTokens | None
    device: torch.device
    dtype: torch.dtype
    max_context: int
    load_ms: float

    @property
    def d(self) -> int:
        """Width of the final hidden states."""
        return int(self.head_weight.shape[1])

    @property
    def vocabulary(self) -> int:
        """Rows of the head, V."""
        return int(self.head_weight.shape[0])

    @property
    def parameters(self) -> int:
        """Number of weights; tied weights count once."""
        return sum(p.numel() for p in self.lm.parameters())

    @property
    def body(self) -> Any:  # noqa: ANN401 - a transformers model
        """The model without its head; its last hidden states are normed."""
        return self.lm.base_model

    @property
    def head_weight(self) -> Tensor:
        """The head E [V, d]."""
        weight: Tensor = self.lm.get_output_embeddings().weight
        return weight

    @property
    def logit_divisor(self) -> float:
        """The constant that logits are divided by: 1, except in Granite models."""
        return float(getattr(self.lm.config, "logits_scaling", None) or 1.0)

    @property
    def stops(self) -> frozenset[int]:
        """Token ids that end a completion."""
        eos = self.tokenizer.eos_token_id
        return (self.fim.stops if self.fim else frozenset()) | ({eos} if eos is not None else frozenset())

    @property
    def start_id(self) -> int:
        """The token id that begins a text without a FIM prompt: bos, else eos, else 0."""
        for index in (self.tokenizer.bos_token_id, self.tokenizer.eos_token_id):
            if index is not None:
                return int(index)
        return 0

    @cached_property
    def token_bytes(self) -> TokenBytes | None:
        """The bytes of every token; None for an unsupported kind of tokenizer."""
        return token_bytes_of(self.tokenizer)

    def encode(self, text: str) -> list[int]:
        """Token ids without special tokens."""
        ids: list[int] = self.tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
        return ids

    @cached_property
    def encode_batch(self) -> Callable[[Sequence[str]], list[list[int]]]:
        """`encode` for many texts, on all cores, for any one thread at a time beside the main one.

        A fast tokenizer is copied: transformers changes its settings in each call, which a second thread must not see.
        """
        backend = getattr(self.tokenizer, "backend_tokenizer", None)
        if backend is None:
            return lambda texts: [self.encode(text) for text in texts]
        own = backend.from_str(backend.to_str())
        own.no_truncation()
        own.no_padding()
        return lambda texts: [found.ids for found in own.encode_batch_fast(list(texts), add_special_tokens=False)]

    def encode_cached(self, text: str) -> list[int]:
        """As `encode`, with a cache of a few texts: the text after the cursor stays the same during typing."""
        return list(self._encode_cached(text))

    @cached_property
    def encode_incrementally(self) -> IncrementalTokenizer:
        """As `encode`, for a text that grows: the ids of all but the last lines are cached."""
        return IncrementalTokenizer(self.encode)

    @cached_property
    def _encode_cached(self) -> Callable[[str], tuple[int, ...]]:
        return lru_cache(maxsize=8)(lambda text: tuple(self.encode(text)))

    def decode(self, ids: list[int]) -> str:
        """Text of token ids, without special tokens and without cleaning up spaces."""
        text: str = self.tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return text

    @torch.inference_mode()
    def hidden(self, ids: Tensor) -> Tensor:
        """Final normed hidden states [B, T, d] of ids [B, T].

        Rows may be padded on the right: attention is causal, so padding does not affect real positions, and without a
        mask PyTorch uses its fast attention. States at padded positions are meaningless.
        """
        output = self.body(input_ids=ids, use_cache=False)
        states: Tensor = output.last_hidden_state
        return states

    @cached_property
    def int8_model(self) -> Int8Model | None:
        """The int8 form of the model, if it runs in int8 on this machine; built at the first use."""
        return build_int8_model(self.lm)

    @torch.inference_mode()
    def hidden_states_in_slices(self, texts: Sequence[Sequence[int]]) -> Slices[list[Tensor]]:
        """Final normed hidden states [n, d] of every text of n ids, without an adapter, in cooperative steps.

        They are computed on the weights that completions use (int8 if `int8_model` is not None).
        """
        if self.int8_model is not None:
            return (yield from self.int8_model.hidden_states_in_slices(texts))
        longest = max(map(len, texts), default=0)
        ids = torch.tensor([[*text, *[self.start_id] * (longest - len(text))] for text in texts], device=self.device)
        if isinstance(self.lm, LlamaLM):
            states = yield from self.lm.base_model.forward_in_slices(ids, self.lm.new_cache())
        else:
            states = yield from self._hidden_by_columns(ids)
        return [row[: len(text)] for row, text in zip(states, texts, strict=True)]

    def _hidden_by_columns(self, ids: Tensor) -> Slices[Tensor]:
        """As `hidden`, by transformers, in steps of some columns: a KV cache holds those before."""
        cache, parts = transformers.DynamicCache(config=self.lm.config), list[Tensor]()
        columns = max(1, _STEP_WORK // (self.parameters * max(1, len(ids))))
        for start in range(0, ids.shape[1], columns):
            part = ids[:, start : start + columns]
            parts.append(self.body(input_ids=part, past_key_values=cache, use_cache=True).last_hidden_state)
            yield
        return torch.cat(parts, 1) if parts else self.hidden(ids)

    def inference_logits(self, hidden: Tensor) -> Tensor:
        """Logits [n, V] of states from `hidden_states_in_slices`, on the same weights."""
        return self.logits(hidden) if self.int8_model is None else self.int8_model.logits(hidden)

    def logits(self, hidden: Tensor) -> Tensor:
        """Logits [..., V] of final hidden states [..., d], in the weights' dtype."""
        scores: Tensor = self.lm.get_output_embeddings()(hidden)
        return scores / self.logit_divisor if self.logit_divisor != 1.0 else scores


_SMALL_THREADS = 3
"""Threads with which `c2l-small` reads a new prompt in about a third of a second on a CPU without `has_fast_cores`.

One fast core (AVX2) takes 0.6 s for a prompt of 1024 tokens, and 2 ms for each generated token.
"""


def resolve_auto(settings: ModelSettings) -> ModelSettings:
    """The settings with "auto" replaced: `c2l-small` if the machine is fast enough, else `c2l-nano`.

    Depends on the hardware only, not on its load: with another model every folder would have to be indexed again.
    Raises ModelError if the configured device does not exist.
    """
    if settings.path or settings.id != AUTO:
        return settings
    fast = (
        pick_device(settings.device).type != "cpu"
        or thread_count() >= _SMALL_THREADS
        or (has_fast_cores() and core_count() > 1)
    )
    return msgspec.structs.replace(settings, id=SMALL if fast else NANO)


def load(settings: ModelSettings) -> BaseModel:
    """Load the model that the settings name, by transformers. Raises ModelError with what is missing and what to do."""
    started = time.perf_counter()
    settings = resolve_auto(settings)
    device = pick_device(settings.device)
    dtype = pick_dtype(settings.dtype, device)
    where, revision = locate(settings)
    offline = settings.offline or Path(where).is_dir()
    arguments: dict[str, Any] = {"local_files_only": offline, "trust_remote_code": False}
    if revision:
        arguments["revision"] = revision
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    if Path(where).is_dir():
        model_folder.check(Path(where))
    with foreign_files(settings, where):
        config = data_only_config(where, "sdpa", **arguments)
        if Path(where).is_dir():
            weights = _require_fitting_weights(config, Path(where))
            model_folder.require_memory(Path(where), weights * dtype.itemsize, device)
        tokenizer = transformers.AutoTokenizer.from_pretrained(where, **arguments)
        lm, info = transformers.AutoModelForCausalLM.from_pretrained(
            where, config=config, dtype=dtype, use_safetensors=True, output_loading_info=True, **arguments
        )
        model_folder.require_complete(info, where)
        model = build_base_model(settings, lm.to(device), tokenizer, device, dtype, started)
        model_folder.require_working(model)
    return model


def foreign_files(settings: ModelSettings, where: str) -> contextlib.AbstractContextManager[None]:
    """A block that parses the files of the model at `where`: every error in it becomes a ModelError."""
    return model_folder.foreign_files(lambda error: load_error(settings, where, error))


def _require_fitting_weights(config: Any, folder: Path) -> int:  # noqa: ANN401 - a transformers configuration
    """Return the number of weights. Raise ModelError if they are more than the folder's files can hold.

    transformers would allocate all of them. Here they are built without memory.
    """
    with torch.device("meta"):
        empty = transformers.AutoModelForCausalLM.from_config(copy.deepcopy(config))
    wanted, limit = sum(p.numel() for p in empty.parameters()), model_folder.weight_limit(folder)
    if limit and wanted > limit:  # without safetensors, loading says so
        raise ModelError(f"{folder / 'config.json'} describes {wanted} weights; the files hold {limit} at most.")
    return wanted


def data_only_config(where: str, attention: str | None, **arguments: Any) -> Any:  # noqa: ANN401 - arguments and result of transformers
    """A model's configuration for `from_pretrained`, without the implementations that its config.json names.

    A name such as "owner/repository" makes transformers download that code and run it. `attention` is "sdpa", "eager"
    or None, transformers' choice for the kind of model; the argument `attn_implementation` would not overrule the file.
    """
    config = transformers.AutoConfig.from_pretrained(where, **arguments)
    config._attn_implementation = attention  # the setters reach the configurations of all parts
    config._experts_implementation = None
    return config


def build_base_model(
    settings: ModelSettings,
    lm: Any,  # noqa: ANN401 - a causal LM with transformers' names
    tokenizer: Any,  # noqa: ANN401 - a transformers tokenizer
    device: torch.device,
    dtype: torch.dtype,
    started: float,
    architecture: str = "",
) -> BaseModel:
    """A `BaseModel` of its parts, with the weights frozen.

    `started` is the `time.perf_counter` at which loading began. `architecture` enters the digest; it defaults to the
    name of the model's class.
    """
    lm = lm.eval().requires_grad_(False)
    return BaseModel(
        id=settings.path or settings.id,
        digest=_digest(lm, architecture or type(lm).__name__),
        lm=lm,
        tokenizer=tokenizer,
        fim=_fim(tokenizer, getattr(lm.config, "c2l_fim", True)),
        device=device,
        dtype=dtype,
        max_context=model_folder.max_context(lm.config),
        load_ms=(time.perf_counter() - started) * 1e3,
    )


def _fim(tokenizer: transformers.PreTrainedTokenizerBase, configured: object) -> FimTokens | None:
    """The FIM tokens. `c2l_fim` in a model's config may be false (fills poorly: not used) or the name of an order."""
    return resolve_fim(tokenizer, configured if isinstance(configured, str) else None) if configured else None


def locate(settings: ModelSettings) -> tuple[str, str]:
    """(folder or Hub name, revision) of the model. Raises ModelError if a folder holds no model.

    A GGUF file is converted first, unless it was before.
    """
    if settings.path:
        folder = _local_folder(settings.path)
        if not (folder / "config.json").is_file():
            raise ModelError(f"c2l.model.path names {folder}, which holds no config.json{_hint(folder)}.")
        return str(folder), ""
    if settings.id in SHIPPED:
        folder = ASSETS / settings.id
        if not (folder / "model.safetensors").is_file():
            raise ModelError(f"The shipped model is missing from {folder}; reinstall c2l-lsp.")
        return str(folder), ""
    if not Path(settings.id).is_absolute() and Path(settings.id).is_dir():  # transformers would load that folder
        raise ModelError(
            f"The current folder holds a folder {settings.id}. Name a folder as c2l.model.path, not c2l.model.id."
        )
    return settings.id, settings.revision


def _local_folder(path: str) -> Path:
    """The folder of `c2l.model.path`: itself, or the conversion of the GGUF file that it names."""
    file = sources.find(path) if sources.is_name(path) else Path(path).expanduser()
    if file.is_dir() or not (sources.is_name(path) or os.path.lexists(file)):
        return file
    with model_folder.foreign_files(lambda error: ModelError(f"{file} cannot be converted: {str(error)[:200]}")):
        return conversion.converted(file)


def _hint(folder: Path) -> str:
    names = sorted(path.name for path in folder.glob("*.gguf"))[:4] if folder.is_dir() else []
    return f"; name one of its GGUF files: {', '.join(names)}" if names else ""


def load_error(settings: ModelSettings, where: str, error: Exception) -> ModelError:
    """The ModelError for an exception raised while the model at `where` was loaded."""
    first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    if Path(where).is_dir():
        if method := model_folder.quantisation(Path(where)):
            return ModelError(
                f"The model in {where} is quantised by {method}, which cannot be computed here ({first}). "
                "Use it without quantisation, or as GGUF."
            )
        return ModelError(f"The model in {where} cannot be loaded: {first}")
    hint = (
        "c2l.model.offline is on and the model is not on this machine"
        if settings.offline
        else "check the name and the network"
    )
    return ModelError(f"The model {where} cannot be loaded ({hint}): {first}")


def _digest(lm: Any, architecture: str) -> str:  # noqa: ANN401 - any causal LM
    """A hash of the architecture and of every tensor's name, shape and some 4096 evenly spaced elements.

    Hashing all weights of a 7B model would take too long.
    """
    digest = hashlib.blake2b(digest_size=16)
    digest.update(architecture.encode())
    for name, tensor in lm.state_dict().items():
        flat = tensor.detach().reshape(-1)
        sample = flat[:: max(1, flat.numel() // 4096)].float().cpu().contiguous()
        digest.update(f"{name}{tuple(tensor.shape)}".encode())
        digest.update(sample.numpy().tobytes())
    return digest.hexdigest()
