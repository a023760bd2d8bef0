"""Random shapes for every function of the kernel: its results must have the same bits however they are divided."""

from __future__ import annotations

import random

import torch
from torch import Tensor

from c2l_lsp.model.runtime import kernel
from c2l_lsp.model.runtime.kernel import ALIGNMENT, Int8Matrix
from c2l_lsp.model.runtime.kernel_layers import KernelLayer, KernelLayers

SPECIAL = (0.0, -0.0, 1e-42, -3e38, 3e38, float("inf"), float("-inf"), float("nan"))


def numbers(rng: random.Random, *shape: int) -> Tensor:
    """Random fp32 numbers; in every fourth tensor, some of SPECIAL."""
    made = torch.randn(shape, generator=torch.Generator().manual_seed(rng.getrandbits(32)))
    if made.numel() and not rng.randrange(4):
        flat = made.view(-1)
        for _ in range(rng.randint(1, 3)):
            flat[rng.randrange(len(flat))] = rng.choice(SPECIAL)
    return made


def matrix(rng: random.Random, out: int, inside: int, rank: int = 0) -> Int8Matrix:
    """A random matrix with a LoRA term of this rank."""
    dice = torch.Generator().manual_seed(rng.getrandbits(32))

    def plain(rows: int, columns: int, bias: Tensor | None = None) -> Int8Matrix:
        Q = torch.randint(-127, 128, (rows, columns), generator=dice, dtype=torch.int8)
        return Int8Matrix.pack(Q, torch.rand(rows, generator=dice) / 500, bias)

    made = plain(out, inside, torch.randn(out, generator=dice) if rng.randrange(2) else None)
    lora = (plain(rank, inside), plain(out, rank)) if rank else None
    return Int8Matrix(made.weight, made.scale, made.bias, lora)


def width(rng: random.Random, most: int = 12) -> int:
    """A multiple of ALIGNMENT."""
    return ALIGNMENT * rng.randint(1, most)


def same(one: Tensor, other: Tensor, what: str) -> None:
    """Raise AssertionError unless both have the same bits, or NaN at the same places."""
    if not torch.equal(one.nan_to_num(nan=12345.0), other.nan_to_num(nan=12345.0)):
        raise AssertionError(f"{what}: other bits")


def _lanes(rng: random.Random) -> None:
    select = kernel.extension().select_lanes
    if not select(rng.choice((4, 8))) and not select(4):
        raise AssertionError("no register width")


def product(rng: random.Random) -> None:
    """Products of any number of rows and threads; a width that is no multiple of ALIGNMENT is refused."""
    _lanes(rng)
    out, inside, rows = rng.randint(1, 300), width(rng), rng.randint(0, 40)
    if not rng.randrange(6):
        inside += rng.randint(1, ALIGNMENT - 1)
        try:
            matrix(rng, out, inside)
        except ValueError:
            return
        raise AssertionError(f"a width of {inside} was accepted")
    many = matrix(rng, out, inside, rng.choice((0, 0, ALIGNMENT, 2 * ALIGNMENT)))
    x = numbers(rng, rows, inside)
    together = kernel.multiply(x, many, rng.randint(1, 9))
    if rows:
        one = rng.randrange(rows)
        same(together[one : one + 1], kernel.multiply(x[one : one + 1].clone(), many), f"row {one} of {rows}")


def layers(rng: random.Random) -> None:
    """Steps of a random model: a text that is read in parts has the bits of one that is read at once."""
    _lanes(rng)
    kv_heads, head_dim, d, inner = rng.randint(1, 3), width(rng, 17), width(rng, 8), width(rng, 8)
    heads, rank = kv_heads * rng.randint(1, 3), rng.choice((0, 0, ALIGNMENT))
    vocabulary, capacity = rng.randint(1, 60), ALIGNMENT * rng.randint(1, 24)
    shapes = ((heads + 2 * kv_heads) * head_dim, d), (d, heads * head_dim), (2 * inner, d), (d, inner)
    made = []
    for _ in range(rng.randint(1, 2)):
        qkv, output, gate_up, down = (matrix(rng, *shape, rank) for shape in shapes)
        made.append(KernelLayer(numbers(rng, d), qkv, output, numbers(rng, d), gate_up, down))
    embedding = numbers(rng, vocabulary, d).to(rng.choice((torch.float32, torch.bfloat16)))
    kv_dtype = rng.choice((torch.float32, torch.bfloat16, torch.float16))
    threads = rng.randint(1, 4), rng.randint(1, 4)
    model = KernelLayers(embedding, made, numbers(rng, d), heads, kv_heads, head_dim, 1e-5, kv_dtype, *threads)
    angles = torch.rand(capacity, 3, head_dim // 2)
    rotations = torch.polar(torch.ones_like(angles), angles)
    ids = [rng.randrange(vocabulary) for _ in range(rng.randint(1, capacity))]
    whole, cut = (model.bind(torch.zeros(model.kv_shape(capacity), dtype=kv_dtype), rotations) for _ in range(2))
    expected, at, parts = whole(ids, 0), 0, []
    while at < len(ids):
        count = rng.randint(1, len(ids) - at)
        parts.append(cut(ids[at : at + count], at))
        at += count
    same(torch.cat(parts), expected, f"{len(ids)} tokens in {len(parts)} parts")
    same(whole(ids[-1:], len(ids) - 1, all_positions=False), expected[-1:], "the last token again")


def rows(rng: random.Random) -> None:
    """The final map and the argmax, each row alone and in a batch."""
    _lanes(rng)
    count, d = rng.randint(1, ALIGNMENT), width(rng)
    x, final = numbers(rng, count, d), numbers(rng, d, d)
    mapped = kernel.apply_final_map(x, final)
    if mapped is None:
        raise AssertionError(f"a map of width {d} was refused")
    one = rng.randrange(count)
    alone = kernel.apply_final_map(x[one : one + 1].clone(), final)
    if alone is not None:
        same(mapped[one : one + 1], alone, "final map")
    logits = numbers(rng, rng.randint(1, 5), rng.randint(1, 700))
    found = kernel.argmax_and_logsumexp(logits)
    if found is None or not all(0 <= token < logits.shape[1] for token in found[0]):
        raise AssertionError(f"the most likely tokens are {found}")
