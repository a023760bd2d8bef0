"""The head of Code2LoRA: a network from a context vector to LoRA pairs.

Source: Code2LoRA, arXiv 2606.06492. Parameter names and arithmetic are those of its published checkpoints, which load
unchanged. Two options are ours and off by default; both keep the adapters of different repositories from becoming
alike: a residual around the mean repository, and coefficients for each layer.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own convention
from msgspec import Meta, Struct
from torch import Tensor, nn

from c2l_lsp.errors import AdapterError
from c2l_lsp.model.runtime.lora_pair import LoraPair

Size = Annotated[int, Meta(ge=1, le=1 << 20)]
PARENT_MODULE = {
    **dict.fromkeys(("q_proj", "k_proj", "v_proj", "o_proj"), "self_attn"),
    **dict.fromkeys(("gate_proj", "up_proj", "down_proj"), "mlp"),
}
"""The submodule of a decoder layer that contains a projection type."""
LOG_SCALE = -3.5
"""Initial logarithm of the scales of A and B."""

SCALE_RANGE = (1e-5, 0.3)
"""Bounds of those scales."""


class HeadConfig(Struct, frozen=True, kw_only=True):
    """Shape of a head. Stored in checkpoints by these names.

    `type_dims` maps a projection type to (in, out). `task_dim` is the width of a task embedding, unused if `num_tasks`
    is 0. With `residual` the mean repository gets B = 0. `layers` is the number of layers that have their own
    coefficients; 0 means one pair for all layers, as published.
    """

    type_dims: Annotated[dict[str, tuple[Size, Size]], Meta(min_length=1)]
    input_dim: Size = 2048
    hidden_dim: Size = 1024
    rank: Annotated[int, Meta(ge=1, le=4096)] = 16
    num_tasks: Annotated[int, Meta(ge=0, le=4096)] = 0
    task_dim: Annotated[int, Meta(ge=0, le=1 << 16)] = 64
    residual: bool = False
    layers: Annotated[int, Meta(ge=0, le=1024)] = 0


class Code2LoRAHead(nn.Module):
    """A context vector [D] → one LoRA pair per projection type t.

        h   = √hidden · normalize(trunk(ctx))               trunk: Linear, GELU, Linear, GELU (exact erf)
        A_t = tanh(heads_A_t h) · clamp(exp(s_A), 1e-5, 0.3)   as [rank, in]
        B_t = tanh(heads_B_t h) · clamp(exp(s_B), 1e-5, 0.3)   as [out, rank]

    With tasks, a trained embedding of the task is appended to ctx. With `residual`, tanh(heads_B_t h) is reduced by its
    value at the buffer `context_mean`, so no part of B is constant. With `layers`, layer l has
    B_t · diag(1 + tanh(layer_gain_t h)_l).
    """

    def __init__(self, config: HeadConfig) -> None:
        super().__init__()
        self.config = config
        types = sorted(config.type_dims)
        task_width = config.task_dim if config.num_tasks else 0
        hidden, rank = config.hidden_dim, config.rank
        self.task_embedding = nn.Embedding(config.num_tasks, task_width) if config.num_tasks else None
        if self.task_embedding is not None:
            nn.init.normal_(self.task_embedding.weight, std=0.02)
        self.trunk = nn.Sequential(
            nn.Linear(config.input_dim + task_width, hidden), nn.GELU(), nn.Linear(hidden, hidden), nn.GELU()
        )
        self.heads_A = nn.ModuleDict({t: nn.Linear(hidden, rank * config.type_dims[t][0]) for t in types})
        self.heads_B = nn.ModuleDict({t: nn.Linear(hidden, config.type_dims[t][1] * rank) for t in types})
        self.layer_gain = nn.ModuleDict()
        if config.layers:
            self.layer_gain = nn.ModuleDict({t: nn.Linear(hidden, config.layers * rank) for t in types})
            for linear in self.layer_gain.children():
                nn.init.zeros_(linear.weight)  # type: ignore[arg-type]
                nn.init.zeros_(linear.bias)  # type: ignore[arg-type]
        self.context_mean: Tensor
        if config.residual:
            self.register_buffer("context_mean", torch.zeros(config.input_dim))
        self.log_scale_A = nn.ParameterDict({t: nn.Parameter(torch.tensor(LOG_SCALE)) for t in types})
        self.log_scale_B = nn.ParameterDict({t: nn.Parameter(torch.tensor(LOG_SCALE)) for t in types})

    def forward(self, ctx: Tensor, task: Tensor | None = None) -> dict[str, tuple[Tensor, Tensor]]:
        """Pairs {t: (A [N, rank, in], B [N, out, rank])} of contexts [N, D]; [N, K, D] is max-pooled over K.

        With `layers` B is [N, layers, out, rank]. `task` [N] holds task indices, 0 by default; a head without tasks
        ignores it.
        """
        if ctx.dim() == 3:
            ctx = ctx.amax(dim=1)  # [N, D]
        h = self._trunk(ctx, task)  # [N, hidden]
        mean = (
            self._trunk(self.context_mean[None], None if task is None else task[:1]) if self.config.residual else None
        )
        rank, pairs = self.config.rank, {}
        for t in self.heads_A:
            width_in, width_out = self.config.type_dims[t]
            A = torch.tanh(self.heads_A[t](h)).view(-1, rank, width_in) * _scale(self.log_scale_A[t])
            raw = torch.tanh(self.heads_B[t](h))
            if mean is not None:
                raw = raw - torch.tanh(self.heads_B[t](mean))
            B = raw.view(-1, width_out, rank) * _scale(self.log_scale_B[t])
            if self.config.layers:
                gain = 1 + torch.tanh(self.layer_gain[t](h)).view(-1, self.config.layers, 1, rank)
                B = B[:, None] * gain  # [N, layers, out, rank]
            pairs[t] = (A, B)
        return pairs

    def _trunk(self, ctx: Tensor, task: Tensor | None) -> Tensor:
        """h [N, hidden] of contexts [N, D]; each row has norm √hidden."""
        ctx = ctx.to(self.log_scale_A[next(iter(self.heads_A))].dtype)
        if self.task_embedding is not None:
            index = torch.zeros(len(ctx), dtype=torch.long, device=ctx.device) if task is None else task
            ctx = torch.cat([ctx, self.task_embedding(index)], dim=-1)
        return F.normalize(self.trunk(ctx), dim=-1) * math.sqrt(self.config.hidden_dim)


def _scale(log_scale: Tensor) -> Tensor:
    return log_scale.exp().clamp(*SCALE_RANGE)


def expand_to_layers(pairs: Mapping[str, tuple[Tensor, Tensor]], layers: int, scale: float) -> dict[str, LoraPair]:
    """Pairs {t: (A [rank, in], B [out, rank] or [layers, out, rank])} as pairs of every layer, by module name.

    `scale` is alpha/rank. A is copied for each layer, because safetensors files cannot share a tensor between names; a
    B [out, rank] is shared, because the export multiplies it by the scale anyway. Raises AdapterError for a projection
    type that no decoder layer has.
    """
    unknown = sorted(pairs.keys() - PARENT_MODULE.keys())
    if unknown:
        raise AdapterError(f"The head generates weights for {', '.join(unknown)}, which no supported model has.")
    return {
        f"model.layers.{i}.{PARENT_MODULE[t]}.{t}": LoraPair(A.clone(), B[i].clone() if B.dim() == 3 else B, scale)
        for i in range(layers)
        for t, (A, B) in pairs.items()
    }
