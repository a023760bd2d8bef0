"""The frozen base LM: loading by name or folder, its tokenizer, its final hidden states and its head.

A `BaseModel` answers two questions for everybody else: the final, normed hidden states of token ids, and the logits of
such hidden states. It knows nothing of repositories, prompts or adapters (those hook in from `lora`).
"""

from __future__ import annotations

import hashlib
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
from c2l_lsp.errors import ModelError
from c2l_lsp.model.lm.fim import FimTokens, resolve_fim
from c2l_lsp.model.lm.incremental_tokenizer import IncrementalTokenizer
from c2l_lsp.model.lm.llama import LlamaLM
from c2l_lsp.model.lm.token_healing import TokenBytes, token_bytes_of
from c2l_lsp.model.runtime.cooperative import Slices
from c2l_lsp.model.runtime.hardware import core_count, has_fast_cores, pick_device, pick_dtype, thread_count
from c2l_lsp.model.runtime.int8_model import Int8Model, build_int8_model

AUTO, NANO, SMALL = "auto", "c2l-nano", "c2l-small"
SHIPPED = (NANO, SMALL)
"""What needs no download: folders of the package."""
ASSETS = Path(__file__).resolve().parents[2] / "assets"


@dataclass(frozen=True)
class BaseModel:
    """A causal LM in evaluation mode, never trained here.

    `d` is the width of the final hidden state, `vocabulary` the rows of the head, `max_context` the positions the model
    was made for, `digest` names the exact weights (adapters and states are bound to it).
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
        """Width of the final hidden state."""
        return int(self.head_weight.shape[1])

    @property
    def vocabulary(self) -> int:
        """Rows of the head."""
        return int(self.head_weight.shape[0])

    @property
    def parameters(self) -> int:
        """Number of weights, tied ones once."""
        return sum(p.numel() for p in self.lm.parameters())

    @property
    def body(self) -> Any:  # noqa: ANN401 - a transformers model
        """The model without its head; its last hidden state is normed."""
        return self.lm.base_model

    @property
    def head_weight(self) -> Tensor:
        """The head E, [vocabulary, d]."""
        weight: Tensor = self.lm.get_output_embeddings().weight
        return weight

    @property
    def logit_divisor(self) -> float:
        """Granite divides its logits by a constant; everybody else by 1."""
        return float(getattr(self.lm.config, "logits_scaling", None) or 1.0)

    @property
    def stops(self) -> frozenset[int]:
        """Ids that end a completion."""
        eos = self.tokenizer.eos_token_id
        return (self.fim.stops if self.fim else frozenset()) | ({eos} if eos is not None else frozenset())

    @property
    def start(self) -> int:
        """Id a text read on its own begins with: bos, else eos, else 0."""
        for index in (self.tokenizer.bos_token_id, self.tokenizer.eos_token_id):
            if index is not None:
                return int(index)
        return 0

    @cached_property
    def token_bytes(self) -> TokenBytes | None:
        """The bytes of every token, None where the tokenizer's kind is not known; made at the first use."""
        return token_bytes_of(self.tokenizer)

    def encode(self, text: str) -> list[int]:
        """Token ids without special tokens."""
        ids: list[int] = self.tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
        return ids

    def encode_cached(self, text: str) -> list[int]:
        """As `encode`; of the last few texts the ids are kept: what follows the cursor stays while somebody types."""
        return list(self._kept(text))

    @cached_property
    def encode_incrementally(self) -> IncrementalTokenizer:
        """As `encode`, for a text that grows: of all but its last lines the ids are kept."""
        return IncrementalTokenizer(self.encode)

    @cached_property
    def _kept(self) -> Callable[[str], tuple[int, ...]]:
        return lru_cache(maxsize=8)(lambda text: tuple(self.encode(text)))

    def decode(self, ids: list[int]) -> str:
        """Text of token ids; special tokens are left out, nothing is tidied."""
        text: str = self.tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return text

    @torch.inference_mode()
    def hidden(self, ids: Tensor) -> Tensor:
        """Final normed hidden states [B, T, d] of ids [B, T].

        Rows may be padded on the right: attention is causal, so no real position sees the padding, and without a mask
        the fast kernel is used. States at padded positions mean nothing.
        """
        output = self.body(input_ids=ids, use_cache=False)
        states: Tensor = output.last_hidden_state
        return states

    @cached_property
    def int8_model(self) -> Int8Model | None:
        """The int8 form of the bare model, where our own kernel reads it best; made at the first use."""
        return build_int8_model(self.lm)

    @torch.inference_mode()
    def hidden_states_in_slices(self, texts: Sequence[Sequence[int]]) -> Slices[list[Tensor]]:
        """Final normed hidden states [n, d] of texts of n ids each, under no adapter, as a completion would have them:
        in slices where the model can be stopped in between."""
        if self.int8_model is not None:
            return (yield from self.int8_model.hidden_states_in_slices(texts))
        longest = max(map(len, texts), default=0)
        ids = torch.tensor([[*text, *[self.start] * (longest - len(text))] for text in texts], device=self.device)
        if isinstance(self.lm, LlamaLM):
            states = yield from self.lm.base_model.forward_in_slices(ids, self.lm.new_cache())
        else:
            states = self.hidden(ids)
        return [row[: len(text)] for row, text in zip(states, texts, strict=True)]

    def inference_logits(self, hidden: Tensor) -> Tensor:
        """Logits [n, vocabulary] of states that `reading` gave."""
        return self.logits(hidden) if self.int8_model is None else self.int8_model.logits(hidden)

    def logits(self, hidden: Tensor) -> Tensor:
        """Logits [..., vocabulary] of final hidden states [..., d], in the weights' dtype."""
        scores: Tensor = self.lm.get_output_embeddings()(hidden)
        return scores / self.logit_divisor if self.logit_divisor != 1.0 else scores


_THREADS = 3
"""As many read a prompt that `c2l-small` has not seen in about a third of a second on a CPU that is not `quick`.
One that is takes 0.6 s with one thread (1024 tokens, AVX2), and 2 ms a token."""


def resolve_auto(settings: ModelSettings) -> ModelSettings:
    """The same settings with a model's name: auto is `c2l-small` where there is power for it, else `c2l-nano`.

    The rule looks at the machine alone, never at its load: another model tomorrow would have to learn the folder anew.
    ModelError if the device is not there.
    """
    if settings.path or settings.id != AUTO:
        return settings
    power = (
        pick_device(settings.device).type != "cpu"
        or thread_count() >= _THREADS
        or (has_fast_cores() and core_count() > 1)
    )
    return msgspec.structs.replace(settings, id=SMALL if power else NANO)


def load(settings: ModelSettings) -> BaseModel:
    """Load the model the settings name, frozen. ModelError says what is missing and what to do."""
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
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(where, **arguments)
        lm = transformers.AutoModelForCausalLM.from_pretrained(
            where, dtype=dtype, use_safetensors=True, attn_implementation="sdpa", **arguments
        )
    except (OSError, ValueError, KeyError, RuntimeError, ImportError) as error:
        raise load_error(settings, where, error) from error
    return build_base_model(settings, lm.to(device), tokenizer, device, dtype, started)


def build_base_model(
    settings: ModelSettings,
    lm: Any,  # noqa: ANN401 - a causal LM with transformers' names
    tokenizer: Any,  # noqa: ANN401 - a transformers tokenizer
    device: torch.device,
    dtype: torch.dtype,
    started: float,
    kind: str = "",
) -> BaseModel:
    """A base of its parts, frozen; `kind` is the name of its class, `started` when its loading began (perf_counter)."""
    lm = lm.eval().requires_grad_(False)
    return BaseModel(
        id=settings.path or settings.id,
        digest=_digest(lm, kind or type(lm).__name__),
        lm=lm,
        tokenizer=tokenizer,
        fim=_fim(tokenizer, getattr(lm.config, "c2l_fim", True)),
        device=device,
        dtype=dtype,
        max_context=int(getattr(lm.config, "max_position_embeddings", None) or 2048),
        load_ms=(time.perf_counter() - started) * 1e3,
    )


def _fim(tokenizer: transformers.PreTrainedTokenizerBase, says: object) -> FimTokens | None:
    """A model's config may say that its middle is poor (false), or in which order it learned to fill (a text)."""
    return resolve_fim(tokenizer, says if isinstance(says, str) else None) if says else None


def locate(settings: ModelSettings) -> tuple[str, str]:
    """(folder or Hub name, revision) of the model the settings name. ModelError if a folder holds none."""
    if settings.path:
        folder = Path(settings.path).expanduser()
        if not (folder / "config.json").is_file():
            raise ModelError(f"c2l.model.path names {folder}, which holds no config.json.")
        return str(folder), ""
    if settings.id in SHIPPED:
        folder = ASSETS / settings.id
        if not (folder / "model.safetensors").is_file():
            raise ModelError(f"The embedded model is missing from {folder}; install the package again.")
        return str(folder), ""
    return settings.id, settings.revision


def load_error(settings: ModelSettings, where: str, error: Exception) -> ModelError:
    """What to tell of an error while a model was loaded."""
    first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    if Path(where).is_dir():
        return ModelError(f"The model in {where} cannot be loaded: {first}")
    hint = "c2l.model.offline is on, so it must be on this machine already" if settings.offline else "check the name"
    return ModelError(f"The model {where} cannot be had ({hint}): {first}")


def _digest(lm: Any, kind: str) -> str:  # noqa: ANN401 - any causal LM
    """Names the weights: a hash of the config and of a strided sample of every tensor (a whole 7B would take long)."""
    digest = hashlib.blake2b(digest_size=16)
    digest.update(kind.encode())
    for name, tensor in lm.state_dict().items():
        flat = tensor.detach().reshape(-1)
        sample = flat[:: max(1, flat.numel() // 4096)].float().cpu().contiguous()
        digest.update(f"{name}{tuple(tensor.shape)}".encode())
        digest.update(sample.numpy().tobytes())
    return digest.hexdigest()
