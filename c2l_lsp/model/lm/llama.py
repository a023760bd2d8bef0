"""Llama models without transformers' modelling code, whose import takes seconds and a hundred megabytes.

Modules have the names that transformers uses, so that weights, adapters and hooks fit both. `fast_loader` decides which
models are loaded by this module.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import msgspec
import torch
from torch import Tensor, nn
from torch.nn import functional

from c2l_lsp.cooperative import Slices, drain

ARCHITECTURE = "LlamaForCausalLM"
"""The class name in config.json; part of the digest."""


class Config(msgspec.Struct, frozen=True):
    """The fields of config.json that decide the computation, with transformers' names and defaults."""

    model_type: str
    architectures: list[str]
    hidden_size: int
    intermediate_size: int
    vocab_size: int
    num_hidden_layers: int
    num_attention_heads: int
    max_position_embeddings: int
    num_key_value_heads: int
    head_dim: int | None = None
    rms_norm_eps: float = 1e-6
    hidden_act: str = "silu"
    attention_bias: bool = False
    mlp_bias: bool = False
    tie_word_embeddings: bool = False
    rope_parameters: dict[str, Any] = {}
    rope_scaling: dict[str, Any] | None = None
    rope_theta: float = 10000.0
    partial_rotary_factor: float | None = None
    layer_types: list[str] | None = None
    sliding_window: int | None = None
    quantization_config: dict[str, Any] | None = None
    c2l_fim: bool | str = True

    @property
    def is_supported(self) -> bool:
        """Whether this module implements the model."""
        rope = self.rope_parameters
        return (
            (self.model_type, self.architectures) == ("llama", [ARCHITECTURE])
            and self.hidden_act == "silu"
            and set(rope) <= {"rope_theta", "rope_type"}
            and rope.get("rope_type", "default") == "default"
            and self.partial_rotary_factor in (None, 1.0)
            and set(self.layer_types or ()) <= {"full_attention"}
            and not (self.rope_scaling or self.sliding_window or self.quantization_config)
        )

    @property
    def theta(self) -> float:
        """The base of the rotary angles."""
        return float(self.rope_parameters.get("rope_theta", self.rope_theta))

    @property
    def head_size(self) -> int:
        """Width h of an attention head."""
        return self.head_dim or self.hidden_size // self.num_attention_heads


@dataclass
class KVCache:
    """Keys and values [B, K, T, h] of every layer, for one batch of texts."""

    layers: dict[int, tuple[Tensor, Tensor]] = field(default_factory=dict)

    def append(self, index: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Append new keys and values to a layer; returns all of them."""
        if index in self.layers:
            old = self.layers[index]
            keys, values = torch.cat((old[0], keys), 2), torch.cat((old[1], values), 2)
        self.layers[index] = (keys, values)
        return keys, values

    def crop(self, end: int) -> None:
        """Keep the positions before `end`; as in a slice, −n removes the last n."""
        self.layers = {i: (k[:, :, :end], v[:, :, :end]) for i, (k, v) in self.layers.items()}


@dataclass(frozen=True)
class Output:
    """Final normed hidden states [B, T, d]."""

    last_hidden_state: Tensor


class RMSNorm(nn.Module):
    """x / √(mean x² + ε) · w, in fp32."""

    def __init__(self, d: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(d))
        self.variance_epsilon = eps

    def forward(self, x: Tensor) -> Tensor:
        """[..., d] → [..., d]."""
        wide = x.float()
        scaled = wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + self.variance_epsilon)
        return self.weight * scaled.to(x.dtype)


class Rotary(nn.Module):
    """Rotary position embedding with frequencies θ^(−2i/h) (Su et al. 2021, arXiv 2104.09864)."""

    attention_scaling = 1.0
    inv_freq: Tensor

    def __init__(self, config: Config) -> None:
        super().__init__()
        powers = torch.arange(0, config.head_size, 2, dtype=torch.float32, device="cpu") / config.head_size
        # [h/2], a buffer so that it moves to the device with the weights; always fp32
        self.register_buffer("inv_freq", 1.0 / config.theta**powers, persistent=False)

    def forward(self, start: int, x: Tensor) -> tuple[Tensor, Tensor]:
        """Cosines and sines [T, h] for x [B, T, d] at positions from `start` on, in the dtype of x."""
        positions = torch.arange(start, start + x.shape[1], dtype=torch.float32, device=x.device)
        angles = positions[:, None] * self.inv_freq
        both = torch.cat((angles, angles), -1)
        return both.cos().to(x.dtype), both.sin().to(x.dtype)


class Attention(nn.Module):
    """Causal grouped-query attention."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        d, h, bias = config.hidden_size, config.head_size, config.attention_bias
        self.head_dim, heads = h, config.num_attention_heads
        kv = config.num_key_value_heads
        self.q_proj = nn.Linear(d, heads * h, bias=bias)
        self.k_proj = nn.Linear(d, kv * h, bias=bias)
        self.v_proj = nn.Linear(d, kv * h, bias=bias)
        self.o_proj = nn.Linear(heads * h, d, bias=bias)

    def forward(
        self, x: Tensor, turn: tuple[Tensor, Tensor], mask: Tensor | None, cache: KVCache, index: int
    ) -> Tensor:
        """[B, T, d] → [B, T, d]. mask [T, L]: positions that each row attends to; None: all up to itself."""
        projected = (projection(x) for projection in (self.q_proj, self.k_proj, self.v_proj))
        q, k, v = (one.unflatten(-1, (-1, self.head_dim)).transpose(1, 2) for one in projected)
        k, v = cache.append(index, _turned(k, turn), v)
        seen = functional.scaled_dot_product_attention(
            _turned(q, turn), k, v, attn_mask=mask, is_causal=mask is None, enable_gqa=True
        )
        return self.o_proj(seen.transpose(1, 2).flatten(2))


def _turned(x: Tensor, turn: tuple[Tensor, Tensor]) -> Tensor:
    first, second = x.chunk(2, -1)
    return x * turn[0] + torch.cat((-second, first), -1) * turn[1]


class MLP(nn.Module):
    """down(silu(gate x) · up x)."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        d, f, bias = config.hidden_size, config.intermediate_size, config.mlp_bias
        self.gate_proj, self.up_proj = nn.Linear(d, f, bias=bias), nn.Linear(d, f, bias=bias)
        self.down_proj = nn.Linear(f, d, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """[..., d] → [..., d]."""
        return self.down_proj(functional.silu(self.gate_proj(x)) * self.up_proj(x))


class Layer(nn.Module):
    """One transformer layer."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.self_attn, self.mlp = Attention(config), MLP(config)
        self.input_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.post_attention_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)

    def forward(
        self, x: Tensor, turn: tuple[Tensor, Tensor], mask: Tensor | None, cache: KVCache, index: int
    ) -> Tensor:
        """[B, T, d] → [B, T, d]."""
        x = x + self.self_attn(self.input_layernorm(x), turn, mask, cache, index)
        return x + self.mlp(self.post_attention_layernorm(x))


class LlamaModel(nn.Module):
    """Token ids to final normed hidden states."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        shape = (config.vocab_size, config.hidden_size)
        # An empty matrix: random initialisation would import torch's compiler, which takes 1.5 s.
        self.embed_tokens = nn.Embedding(*shape, _weight=torch.empty(shape))
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.num_hidden_layers))
        self.norm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.rotary_emb = Rotary(config)

    @property
    def device(self) -> torch.device:
        """Device of the weights."""
        return self.embed_tokens.weight.device

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        past_key_values: KVCache | None = None,
        use_cache: bool = False,
    ) -> Output:
        """Hidden states of ids [B, T], at the positions after those in the cache.

        Padding must be on the right; causal attention keeps it from real positions, so `attention_mask` is ignored.
        """
        del attention_mask, use_cache
        return Output(
            drain(self.forward_in_slices(input_ids, KVCache() if past_key_values is None else past_key_values))
        )

    def forward_in_slices(self, input_ids: Tensor, cache: KVCache) -> Slices[Tensor]:
        """As `forward`, with one layer per cooperative step: final normed hidden states [B, T, d]."""
        start = cache.layers[0][0].shape[2] if cache.layers else 0
        x = self.embed_tokens(input_ids)
        turn, T = self.rotary_emb(start, x), input_ids.shape[1]
        mask = torch.ones(T, start + T, dtype=torch.bool, device=x.device).tril_(start) if start else None
        for index, layer in enumerate(self.layers):
            x = layer(x, turn, mask, cache, index)
            yield
        return self.norm(x)


class LlamaLM(nn.Module):
    """A Llama causal LM with the part of transformers' interface that this package uses."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.model = LlamaModel(config)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)

    @property
    def base_model(self) -> LlamaModel:
        """The model without its head."""
        return self.model

    @property
    def device(self) -> torch.device:
        """Device of the weights."""
        return self.model.device

    @property
    def dtype(self) -> torch.dtype:
        """Dtype of the weights."""
        return self.lm_head.weight.dtype

    def get_output_embeddings(self) -> nn.Linear:
        """The head, [V, d]."""
        return self.lm_head

    def new_cache(self) -> KVCache:
        """An empty KV cache."""
        return KVCache()
