"""int8 forms of a matrix for the CPU, and LoRA terms beside a matrix that is too large to merge them into.

Both int8 forms store W ≈ s·Q with one scale per row and |Q| ≤ 127. They differ in the operator:

| class | operator | activations |
|---|---|---|
| `KernelInt8Linear` | our C kernel | 16-bit integers with one scale per row; closer than bf16 |
| `TorchInt8Linear` | PyTorch's `_weight_int8pack_mm` | bf16, in fp32 models too: on every CPU it is the fast path |

A row of the product has the same bits however many rows are multiplied at once, so a checked draft equals single steps.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from c2l_lsp.model.runtime import kernel
from c2l_lsp.model.runtime.fusion import PROJECTIONS, interleave_halves, pairs_by_layer
from c2l_lsp.model.runtime.hardware import has_avx2
from c2l_lsp.model.runtime.kernel_layers import MULTITHREAD_TOKENS, KernelLayer, KernelLayers
from c2l_lsp.model.runtime.lora_pair import LoraPair
from c2l_lsp.model.runtime.weights import DenseLinear, Layer, Linear, Weights

_TORCH_ALIGNMENT = 32  # PyTorch's operator reads vectors of this many elements and does not check

_PARALLEL_WEIGHTS = 2**23
"""int8 weights from which on several threads pay off: a smaller matrix is read before a thread has woken up."""


def int8_is_faster(lm: Any) -> bool:  # noqa: ANN401 - any transformers model
    """Whether int8 decode steps are faster: on a CPU with vectors, in the dtype that is the model's fastest there."""
    if lm.device.type != "cpu" or not hasattr(torch, "_weight_int8pack_mm"):
        return False
    if torch.cpu._is_avx512_bf16_supported():
        return lm.dtype == torch.bfloat16
    return lm.dtype == torch.float32 and has_avx2()


def kernel_supports(lm: Any) -> bool:  # noqa: ANN401 - any transformers model
    """Whether the C kernel can run int8 steps: it was built, and the model is on the CPU."""
    return lm.device.type == "cpu" and kernel.is_available()


@dataclass(frozen=True)
class TorchInt8Linear:
    """x ↦ (x Qᵀ)·s + b by PyTorch; Q int8 [out, in], s bf16 [out]; x and y in the model's dtype."""

    weight: Tensor
    scale: Tensor
    bias: Tensor | None = None

    @classmethod
    def quantize(cls, matrix: DenseLinear) -> Linear:
        """The int8 form; the matrix itself if the operator does not support its shape."""
        W = matrix.weight.float()
        if W.shape[1] % _TORCH_ALIGNMENT:
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
    """x ↦ (x Qᵀ)·s + b by the C kernel; x and y in any dtype."""

    matrix: kernel.Int8Matrix

    @classmethod
    def quantize(cls, matrix: DenseLinear) -> Linear:
        """The int8 form; the matrix itself if the kernel does not support its shape."""
        if matrix.weight.shape[1] % kernel.ALIGNMENT:
            return matrix
        return cls(_quantize(matrix.weight, matrix.bias))

    def with_lora(self, A: Tensor, B: Tensor) -> KernelInt8Linear:
        """The map plus B (A x), with A [r, in] and B [out, r] quantised like the matrix and padded to the alignment."""
        spare = -len(A) % kernel.ALIGNMENT
        factors = _quantize(functional.pad(A, (0, 0, 0, spare))), _quantize(functional.pad(B, (0, spare)))
        return KernelInt8Linear(replace(self.matrix, lora=factors))

    def __call__(self, x: Tensor) -> Tensor:
        """[n, in] → [n, out]."""
        threads = _threads(self.matrix.weight.numel() * (len(x) if len(x) >= MULTITHREAD_TOKENS else 1))
        return kernel.multiply(x.float().contiguous(), self.matrix, threads).to(x.dtype)


@dataclass(frozen=True)
class LinearWithLora:
    """x ↦ y + (x Aᵀ) Bᵀ with y = matrix(x); A [r, in], B [out, r], the scale is part of B."""

    matrix: Linear
    A: Tensor
    B: Tensor

    def __call__(self, x: Tensor) -> Tensor:
        """[n, in] → [n, out]."""
        return self.matrix(x) + functional.linear(functional.linear(x, self.A), self.B)


def _quantize(weight: Tensor, bias: Tensor | None = None) -> kernel.Int8Matrix:
    W = weight.float()
    scale = (W.abs().amax(1) / 127).clamp_min(1e-12)
    Q = (W / scale[:, None]).round().to(torch.int8)
    return kernel.Int8Matrix.pack(Q, scale, None if bias is None else bias.float().contiguous())


def _threads(weight_count: int) -> int:
    return torch.get_num_threads() if weight_count >= _PARALLEL_WEIGHTS else 1


def build_kernel_layers(weights: Weights, kv_dtype: torch.dtype) -> KernelLayers | None:
    """All layers for one call per step; None if a matrix is no `KernelInt8Linear` or has an unsupported shape."""
    layers = [_kernel_layer(layer) for layer in weights.layers]
    supported = [layer for layer in layers if layer is not None]
    if len(supported) < len(layers):
        return None
    norm = weights.norm
    try:
        return KernelLayers(
            weights.embedding,
            supported,
            norm.weight.float().contiguous(),
            weights.heads,
            weights.kv_heads,
            weights.head_dim,
            norm.eps,
            kv_dtype,
            _threads(sum(layer.weight_count for layer in supported)),
            _threads(_PARALLEL_WEIGHTS),
        )
    except ValueError:
        return None


def _kernel_layer(layer: Layer) -> KernelLayer | None:
    linears = (layer.qkv, layer.output, layer.gate_up, layer.down)
    matrices = [linear.matrix for linear in linears if isinstance(linear, KernelInt8Linear)]
    if len(matrices) < len(linears):
        return None
    qkv, output, gate_up, down = matrices
    attention_norm, mlp_norm = (norm.weight.float().contiguous() for norm in (layer.attention_norm, layer.mlp_norm))
    return KernelLayer(attention_norm, qkv, output, mlp_norm, gate_up, down)


_FUSED_OF = {"qkv": PROJECTIONS[:3], "output": PROJECTIONS[3:4], "gate_up": PROJECTIONS[4:6], "down": PROJECTIONS[6:]}


def attach_lora(lm: Any, weights: Weights, pairs: Mapping[str, LoraPair]) -> dict[int, Layer]:  # noqa: ANN401 - as in `fuse_projections`
    """The layers that have pairs, by index, with the pairs' LoRA terms beside their fused matrices."""
    like, h = weights.embedding, weights.head_dim
    made = {}
    for index, inside in pairs_by_layer(lm, pairs).items():
        layer = weights.layers[index]
        outputs = {name: lm.base_model.layers[index].get_submodule(name).weight.shape[0] for name in PROJECTIONS}
        changed: dict[str, Linear] = {}
        for fused, names in _FUSED_OF.items():
            if any(name in inside for name in names):
                A, B = _fused_factors(inside, names, outputs, h)
                own = getattr(layer, fused)
                changed[fused] = (
                    own.with_lora(A, B)
                    if isinstance(own, KernelInt8Linear)
                    else LinearWithLora(own, A.to(like), B.to(like))
                )
        made[index] = layer.with_linears(changed)
    return made


def _fused_factors(
    pairs: Mapping[str, LoraPair], names: tuple[str, ...], outputs: Mapping[str, int], head_dim: int
) -> tuple[Tensor, Tensor]:
    """The factors of a fused matrix: A [Σr, in]; B [out, Σr] block-diagonal, one block per projection."""
    factors, blocks = [], []
    for name in names:
        if (pair := pairs.get(name)) is None:
            blocks.append(torch.zeros(outputs[name], 0))
            continue
        B = pair.scale * pair.B.float()
        factors.append(pair.A.float())
        blocks.append((interleave_halves(B, head_dim) if name in PROJECTIONS[:2] else B).cpu())
    return torch.cat(factors), torch.block_diag(*blocks)  # type: ignore[no-untyped-call]
