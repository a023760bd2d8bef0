"""A decode step of fixed shapes, recorded once as a CUDA graph and played again for every token.

On a GPU a step of our forward pass is bound by the launches of its kernels; a graph launches all of them at once. For
that nothing may depend on the position but the contents of tensors: keys and values are written at an index, attention
looks at the whole room of the text under a mask. On a CPU the same function runs as it is (that is how it is tested).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional

from c2l_lsp.model.runtime.weights import Layer, Weights

ROWS = (1, 5, 9)
"""Tokens of a step that graphs are recorded for. Fewer are padded; what those write is masked until overwritten."""

_WARM_UPS = 2  # kernels and workspaces are chosen before recording


class FixedStep:
    """Steps of up to `rows` tokens of one text, in the keys and values `kv` [layers][capacity, 2·K·h]."""

    def __init__(self, weights: Weights, rotations: Tensor, kv: Sequence[Tensor], rows: int) -> None:
        """`rotations` [capacity, 3, h/2] complex are those of q, k and v by position."""
        self._weights, self._rotations, self._kv = weights, rotations, list(kv)
        device = weights.embedding.device
        self._tokens = torch.zeros(rows, dtype=torch.long, device=device)
        self._positions = torch.zeros(rows, dtype=torch.long, device=device)
        self._places = torch.arange(len(kv[0]), device=device)
        self._play: Callable[[], None] | None = None
        self._out = torch.empty(0)

    @property
    def rows(self) -> int:
        """The most tokens it takes."""
        return len(self._tokens)

    def __call__(self, ids: list[int], start: int) -> Tensor:
        """Hidden states [n, d] of ids that stand from `start` on."""
        padded = torch.tensor([*ids, *[ids[-1]] * (self.rows - len(ids))])
        self._tokens.copy_(padded)
        self._positions.copy_(torch.arange(start, start + self.rows))
        if self._play is None:
            self._play = self._recorded() if self._tokens.is_cuda else self._run
        self._play()
        return self._out[: len(ids)].clone()

    def _recorded(self) -> Callable[[], None]:
        stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(_WARM_UPS):
                self._run()
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            self._run()
        return graph.replay

    def _run(self) -> None:
        w = self._weights
        x = functional.embedding(self._tokens, w.embedding)  # [n, d]
        turn = self._rotations.index_select(0, self._positions)  # [n, 3, h/2]
        counts = (w.heads, w.kv_heads, w.kv_heads)
        rotation = torch.cat([turn[:, i : i + 1].expand(-1, count, -1) for i, count in enumerate(counts)], 1)
        mask = self._places <= self._positions[:, None]  # [n, capacity]
        for layer, kv in zip(w.layers, self._kv, strict=True):
            x = x + layer.output(self._attend(x, layer, kv, rotation, mask))
            gate, up = layer.gate_up(layer.mlp_norm(x)).chunk(2, -1)
            x = x + layer.down(functional.silu(gate) * up)
        self._out = w.norm(x)

    def _attend(self, x: Tensor, layer: Layer, kv: Tensor, rotation: Tensor, mask: Tensor) -> Tensor:
        """[n, d] → [n, H·h]; keys and values of x are written into kv."""
        w, n = self._weights, len(x)
        projected = layer.qkv(layer.attention_norm(x)).float()
        turned = torch.view_as_complex(projected.view(n, -1, w.head_dim // 2, 2)) * rotation
        heads = torch.view_as_real(turned).flatten(2)  # [n, H + 2K, h]
        kv.index_copy_(0, self._positions, heads[:, w.heads :].flatten(1).to(kv.dtype))
        q = heads[:, : w.heads].to(x.dtype).transpose(0, 1)[None]  # [1, H, n, h]
        k, v = kv.view(len(kv), 2, 1, w.kv_heads, w.head_dim).permute(1, 2, 3, 0, 4)  # each [1, K, capacity, h]
        seen = functional.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=1.0, enable_gqa=True)
        return seen[0].transpose(0, 1).flatten(1)
