"""A decode step of fixed shapes that is recorded once as a CUDA graph and replayed for every token.

On a GPU a step of a small model is bound by the launches of its operators; a graph launches all of them at once. A
replay repeats the recorded operators on the recorded memory. So inputs are copied into fixed tensors, keys and values
are written at an index tensor, and attention reads the whole KV cache under a mask; no Python number depends on the
position. On other devices the same function runs without a recording.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional

from c2l_lsp.model.runtime.weights import Layer, Weights

Recorder = Callable[[Callable[[], None]], Callable[[], None]]
"""Records what a function does to tensors and returns a function that replays it."""

ROWS = (1, 5, 9)
"""Row counts that steps are recorded for. Shorter steps are padded; padded positions are masked until overwritten."""

_WARM_UPS = 2  # runs before the recording, in which libraries choose kernels and allocate workspaces


def record_cuda_graph(run: Callable[[], None]) -> Callable[[], None]:
    """Record `run` as a CUDA graph on the current device."""
    stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(_WARM_UPS):
            run()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        run()
    return graph.replay


class FixedStep:
    """Decode steps of up to `rows` tokens of one text, which all use the same memory."""

    def __init__(
        self, weights: Weights, rotations: Tensor, kv: Sequence[Tensor], rows: int, record: Recorder | None = None
    ) -> None:
        """Bind the KV cache kv [layers][capacity, 2·K·h] and rotations complex64 [≥ capacity, 3, h/2].

        `record` defaults to `record_cuda_graph` on a CUDA device and to no recording elsewhere.
        """
        self._weights, self._rotations, self._kv = weights, rotations, list(kv)
        device = weights.embedding.device
        self._tokens = torch.zeros(rows, dtype=torch.long, device=device)
        self._positions = torch.zeros(rows, dtype=torch.long, device=device)
        self._all_positions = torch.arange(len(kv[0]), device=device)
        self._record = record_cuda_graph if record is None and device.type == "cuda" else record
        self._replay: Callable[[], None] | None = None
        self._out = torch.empty(0)

    def __call__(self, ids: list[int], start: int) -> Tensor:
        """Final normed hidden states [n, d] of ids at positions from `start` on; writes their keys and values.

        n must not exceed `rows`, and the capacity must be at least start + rows.
        """
        rows = len(self._tokens)
        self._tokens.copy_(torch.tensor([*ids, *[ids[-1]] * (rows - len(ids))]))
        self._positions.copy_(torch.arange(start, start + rows))
        if self._replay is None:
            self._replay = self._run if self._record is None else self._record(self._run)
        self._replay()
        return self._out[: len(ids)].clone()

    def _run(self) -> None:
        w = self._weights
        x = functional.embedding(self._tokens, w.embedding)  # [n, d]
        rotation = w.expand_rotations(self._rotations.index_select(0, self._positions))  # [n, H + 2K, h/2]
        mask = self._all_positions <= self._positions[:, None]  # [n, capacity]
        for layer, kv in zip(w.layers, self._kv, strict=True):
            x = layer.mlp(x + layer.output(self._attend(x, layer, kv, rotation, mask)))
        self._out = w.norm(x)

    def _attend(self, x: Tensor, layer: Layer, kv: Tensor, rotation: Tensor, mask: Tensor) -> Tensor:
        """Attention output [n, H·h] of x [n, d]; writes the keys and values of x into kv."""
        w = self._weights
        heads = w.rotated_heads(layer, x, rotation)  # [n, H + 2K, h]
        kv.index_copy_(0, self._positions, heads[:, w.heads :].flatten(1).to(kv.dtype))
        q = heads[:, : w.heads].to(x.dtype).transpose(0, 1)[None]  # [1, H, n, h]
        k, v = kv.view(len(kv), 2, 1, w.kv_heads, w.head_dim).permute(1, 2, 3, 0, 4)  # each [1, K, capacity, h]
        out = functional.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=1.0, enable_gqa=True)
        return out[0].transpose(0, 1).flatten(1)
