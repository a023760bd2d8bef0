"""Other forms of a fused matrix: int8 for decoding on a CPU; low-rank factors beside it, where merging costs too much.

int8: one scale per row, W ≈ s·Q with |Q| ≤ 127. `Quick` multiplies by our own kernel, activations of 16 bits with a
scale per row, closer than bf16. `Int8` is what there is without it: PyTorch's, activations bf16 (rounded to it where
the model runs in fp32, because the CPU multiplies no bf16: PyTorch's kernel for bf16 rows is the fast one there too). A
row of the product has the same bits however many rows are multiplied at once, so a checked draft equals single steps.
What it costs is measured by `bench perf`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from c2l_lsp.model.runtime import kernel
from c2l_lsp.model.runtime.hardware import has_avx2
from c2l_lsp.model.runtime.kernel_layers import MULTITHREAD_TOKENS, KernelLayer, KernelLayers
from c2l_lsp.model.runtime.lora_pair import LoraPair
from c2l_lsp.model.runtime.weights import (
    PROJECTIONS,
    DenseLinear,
    Layer,
    Linear,
    Weights,
    interleave_halves,
    pairs_by_layer,
)

_MULTIPLE = 32  # PyTorch's kernel reads rows in vectors of this many numbers, and does not check


@dataclass(frozen=True)
class TorchInt8Linear:
    """x ↦ (x Qᵀ)·s + b; Q int8 [out, in], s bf16 [out]; x and y in the model's dtype."""

    weight: Tensor
    scale: Tensor
    bias: Tensor | None = None

    @classmethod
    def quantize(cls, matrix: DenseLinear) -> Linear:
        """The int8 form of a plain matrix; the matrix itself where the kernel does not fit its shape."""
        W = matrix.weight.float()
        if W.shape[1] % _MULTIPLE:
            return matrix
        scale = (W.abs().amax(1) / 127).clamp_min(1e-12).to(torch.bfloat16)
        Q = (W / scale.float()[:, None]).round().clamp(-127, 127).to(torch.int8)
        return cls(Q.contiguous(), scale, matrix.bias)

    def __call__(self, x: Tensor) -> Tensor:
        """[n, in] → [n, out]."""
        y = torch._weight_int8pack_mm(x.to(torch.bfloat16), self.weight, self.scale).to(x.dtype)
        return y if self.bias is None else y + self.bias


@dataclass(frozen=True)
class KernelInt8Linear:
    """x ↦ (x Qᵀ)·s + b by our own kernel; x and y in any dtype."""

    rows: kernel.Int8Matrix

    @classmethod
    def quantize(cls, matrix: DenseLinear) -> Linear:
        """The int8 form of a plain matrix; the matrix itself where the kernel does not fit its shape."""
        if matrix.weight.shape[1] % kernel.ALIGNMENT:
            return matrix
        return cls(_rows(matrix.weight, matrix.bias))

    def with_lora(self, A: Tensor, B: Tensor) -> KernelInt8Linear:
        """The map with factors A [r, in], B [out, r] beside it: in int8 as the matrix is."""
        spare = -len(A) % kernel.ALIGNMENT
        low, high = _rows(functional.pad(A, (0, 0, 0, spare))), _rows(functional.pad(B, (0, spare)))
        return KernelInt8Linear(replace(self.rows, lora=(low, high)))

    def __call__(self, x: Tensor) -> Tensor:
        """[n, in] → [n, out]."""
        threads = _threads(self.rows.weight.numel() * (len(x) if len(x) >= MULTITHREAD_TOKENS else 1))
        return kernel.multiply(x.float().contiguous(), self.rows, threads).to(x.dtype)


def _rows(weight: Tensor, bias: Tensor | None = None) -> kernel.Int8Matrix:
    W = weight.float()
    scale = (W.abs().amax(1) / 127).clamp_min(1e-12)
    Q = (W / scale[:, None]).round().to(torch.int8)
    return kernel.Int8Matrix.pack(Q, scale, None if bias is None else bias.float().contiguous())


def build_kernel_layers(weights: Weights, kv: torch.dtype) -> KernelLayers | None:
    """All layers for one compiled call a step, keys and values of dtype `kv`; None where a matrix is no `Quick` or a
    shape does not fit."""
    blocks = [_block(layer) for layer in weights.layers]
    whole = [block for block in blocks if block is not None]
    if len(whole) < len(blocks):
        return None
    norm = weights.norm
    try:
        return KernelLayers(
            weights.embedding,
            whole,
            norm.weight.float().contiguous(),
            weights.heads,
            weights.kv_heads,
            weights.head_dim,
            norm.eps,
            kv,
            _threads(sum(block.weight_count for block in whole)),
            _threads(_SHARED),
        )
    except ValueError:
        return None


def _block(layer: Layer) -> KernelLayer | None:
    qkv, output, gate_up, down = layer.qkv, layer.output, layer.gate_up, layer.down
    if not (
        isinstance(qkv, KernelInt8Linear)
        and isinstance(output, KernelInt8Linear)
        and isinstance(gate_up, KernelInt8Linear)
        and isinstance(down, KernelInt8Linear)
    ):
        return None
    norms = [norm.weight.float().contiguous() for norm in (layer.attention_norm, layer.mlp_norm)]
    return KernelLayer(norms[0], qkv.rows, output.rows, norms[1], gate_up.rows, down.rows)


@dataclass(frozen=True)
class LinearWithLora:
    """A matrix and factors that are not merged: y + (x Aᵀ) Bᵀ; A [r, in], B [out, r], the scale inside B."""

    matrix: Linear
    A: Tensor
    B: Tensor

    def __call__(self, x: Tensor) -> Tensor:
        """[n, in] → [n, out]."""
        return self.matrix(x) + functional.linear(functional.linear(x, self.A), self.B)


_SHARED = 2**23
"""Bytes of int8 weights from which several threads multiply by them: fewer are read before a thread has woken."""


def kernel_supports(lm: Any) -> bool:  # noqa: ANN401 - any transformers model
    """Whether our own kernel takes the int8 steps: built, and on a CPU."""
    return lm.device.type == "cpu" and kernel.is_available()


def _threads(count: int) -> int:
    return torch.get_num_threads() if count >= _SHARED else 1


def int8_is_faster(lm: Any) -> bool:  # noqa: ANN401 - any transformers model
    """Whether decoding in int8 pays: on a CPU with vectors, for a model in the dtype that is its fastest there."""
    if lm.device.type != "cpu" or not hasattr(torch, "_weight_int8pack_mm"):
        return False
    if torch.cpu._is_avx512_bf16_supported():
        return lm.dtype == torch.bfloat16
    return lm.dtype == torch.float32 and has_avx2()


def attach_lora(lm: Any, weights: Weights, pairs: Mapping[str, LoraPair]) -> dict[int, Layer]:  # noqa: ANN401 - as in `fuse`
    """The layers that have pairs, with the factors of all parts of each fused matrix beside it as two flat ones."""
    like, h = weights.embedding, weights.head_dim
    made = {}
    for index, inside in pairs_by_layer(lm, pairs).items():
        layer = weights.layers[index]
        rows = {name: lm.base_model.layers[index].get_submodule(name).weight.shape[0] for name in PROJECTIONS}
        changed: dict[str, Linear] = {}
        for place, names in _PARTS.items():
            if any(name in inside for name in names):
                A, B = _flat(inside, names, rows, h)
                own = getattr(layer, place)
                changed[place] = (
                    own.with_lora(A, B)
                    if isinstance(own, KernelInt8Linear)
                    else LinearWithLora(own, A.to(like), B.to(like))
                )
        made[index] = layer.with_linears(changed)
    return made


_PARTS = {"qkv": PROJECTIONS[:3], "output": PROJECTIONS[3:4], "gate_up": PROJECTIONS[4:6], "down": PROJECTIONS[6:]}


def _flat(
    inside: Mapping[str, LoraPair], names: tuple[str, ...], rows: Mapping[str, int], head_dim: int
) -> tuple[Tensor, Tensor]:
    """Factors of the parts of one fused matrix: A [Σr, in], B [out, Σr], zero between the parts."""
    factors, blocks = [], []
    for name in names:
        if (pair := inside.get(name)) is None:
            blocks.append(torch.zeros(rows[name], 0))
            continue
        B = pair.scale * pair.B.float()
        factors.append(pair.A.float())
        blocks.append((interleave_halves(B, head_dim) if name in PROJECTIONS[:2] else B).cpu())
    return torch.cat(factors), torch.block_diag(*blocks)  # type: ignore[no-untyped-call]
