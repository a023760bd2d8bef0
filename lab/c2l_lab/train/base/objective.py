"""What training lowers and what evaluation measures: loss of packed rows, bits per byte, exact rest-of-line."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from c2l_lab.corpus.corpus import Document
from c2l_lab.corpus.tokenizer import CodeTokenizer
from c2l_lab.train.base import fim_spans
from c2l_lab.train.base.attention import FLEX, block_mask
from c2l_lab.train.base.examples import IGNORE, Batch, examples, fim_tokens, pack, pieces, to_batch
from c2l_lab.train.base.examples import Recipe as ExampleRecipe
from c2l_lsp.model.lm.token_healing import forced_prefix_of

Loss = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]


def mask_of(segments: Tensor) -> Tensor:
    """Who may look at whom: (B, T) file numbers → (B, 1, T, T) bool, causal and within one file."""
    T = segments.shape[1]
    causal = torch.ones(T, T, dtype=torch.bool, device=segments.device).tril()
    return ((segments[:, :, None] == segments[:, None, :]) & causal)[:, None]


def multiplies_bf16(device: torch.device) -> bool:
    """Whether a device has instructions for products of bf16; else they are emulated."""
    return device.type != "cpu" or torch.cpu._is_avx512_bf16_supported()


def products(device: torch.device) -> torch.autocast:
    """Matrix products in bf16 where the device multiplies it; a CPU that does not would take four times as long."""
    return torch.autocast(device.type, torch.bfloat16, enabled=multiplies_bf16(device))


def packed_loss(model: torch.nn.Module) -> Loss:
    """(ids, positions, segments, labels), (B, T) each → summed loss in nat over the labels that count, fp32 scalar.

    Matrix products as `products` says; the softmax in fp32.
    """

    def loss(ids: Tensor, positions: Tensor, segments: Tensor, labels: Tensor) -> Tensor:
        # transformers takes a mask that is made already in a dict, by the kind of layer
        flex = model.config._attn_implementation == FLEX  # type: ignore[union-attr]
        mask = {"full_attention": block_mask(segments)} if flex else mask_of(segments)
        with products(ids.device):
            hidden = model.model(  # type: ignore[operator]
                input_ids=ids, attention_mask=mask, position_ids=positions, use_cache=False
            ).last_hidden_state
            logits = model.lm_head(hidden)  # type: ignore[operator]
        return cross_entropy(logits.float().flatten(0, 1), labels.flatten(), ignore_index=IGNORE, reduction="sum")

    return loss


def tensors(batch: Batch, device: torch.device) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The four arrays of a batch on `device`."""
    ids, positions, segments, labels = (
        torch.from_numpy(a).to(device, non_blocking=True)
        for a in (batch.ids, batch.positions, batch.segments, batch.labels)
    )
    return ids, positions, segments, labels


@dataclass(frozen=True)
class Evaluation:
    """What was measured on files that are never trained on."""

    nat_per_token: float
    bits_per_byte: float
    middle_nat_per_token: float

    def to_json(self) -> dict[str, float]:
        """Names and numbers, rounded to what the sample carries."""
        return {name: round(value, 4) for name, value in vars(self).items()}


class TuneSet:
    """Fixed rows drawn from files that are never trained on."""

    def __init__(self, documents: Sequence[Document], tokenizer: CodeTokenizer, length: int, rows: int) -> None:
        """Draw about `rows` rows of plain pieces and a third as many with holes, the same ones in every run."""
        dice = random.Random(20)  # noqa: S311 - the same sample in every run
        plain = ExampleRecipe(length, 0.0)
        cut = [piece for d in sorted(documents, key=lambda d: d.id) for piece in pieces(d.text, length, dice)]
        chosen = dice.sample(cut, min(len(cut), rows))
        tokens = examples([(piece, False) for piece in chosen], plain, tokenizer, dice)
        self._bytes = sum(len(tokenizer.decode(ids[1:]).encode()) for ids in tokens)
        self._plain = pack(tokens, length)[:]
        made = (
            fim_tokens(fim_spans.split(p, dice), tokenizer, length) for p in dice.sample(cut, min(len(cut), rows // 2))
        )
        self._middles = [one for one in made if one]
        self._length, self._tokenizer = length, tokenizer

    def _sum(
        self, loss: Loss, rows: Sequence[list[list[int]]], device: torch.device, begins: Sequence[int], width: int
    ) -> tuple[float, int]:
        """(loss, tokens counted); of row i, tokens before `begins[i]` do not count."""
        total, count = 0.0, 0
        for at in range(0, len(rows), width):
            part = [*rows[at : at + width]]
            part += [[]] * (width - len(part))  # one shape: nothing is compiled again
            batch = to_batch(part, self._length, self._tokenizer.pad)
            for b, begin in enumerate(begins[at : at + width]):
                batch.labels[b, : max(0, begin - 1)] = IGNORE
            count += int((batch.labels != IGNORE).sum())
            total += float(loss(*tensors(batch, device)))
        return total, count

    @torch.no_grad()
    def measure(self, loss: Loss, device: torch.device, width: int) -> Evaluation:
        """Mean loss of plain text (per token and per byte of text) and of middles, `width` rows at a time."""
        total, count = self._sum(loss, self._plain, device, [0] * len(self._plain), width)
        holes, begins = [[ids] for ids, _ in self._middles], [begin for _, begin in self._middles]
        middle, middles = self._sum(loss, holes, device, begins, width)
        return Evaluation(total / count, total / math.log(2) / self._bytes, middle / max(1, middles))


def _prompt(text: str, begin: int, end: int, context: int, fill: bool, tokenizer: CodeTokenizer) -> list[int]:
    """What is shown of `text` before a hole: with FIM tokens both sides, else END and what stands before."""
    before = text[max(0, begin - 8 * context) : begin]
    if not fill:
        return [tokenizer.end, *tokenizer.encode(before)[-context:]]
    made = fim_tokens(fim_spans.Split(before, "", text[end : end + 8 * context]), tokenizer, context + 5)
    return made[0][:-1] if made else [tokenizer.end]


@torch.no_grad()
def rest_of_line(
    model: torch.nn.Module, documents: Sequence[Document], tokenizer: CodeTokenizer, *, count: int,
    context: int, device: torch.device, fill: bool = True, seed: int = 30,
) -> dict[str, float]:  # fmt: skip
    """Greedy completion of the rest of random lines: share that is exactly right, and its standard error.

    `context` tokens in all are shown of the file: both sides with FIM tokens (`fill`), or only what stands before. The
    hole is cut at random characters of lines that are not blank, moved to where the engine's prompts would end.
    Trailing spaces do not count.
    """
    dice = random.Random(seed)  # noqa: S311 - the same sample in every run
    right = asked = 0
    chosen = sorted(documents, key=lambda d: d.id)
    while asked < count:
        text = dice.choice(chosen).text
        begin, end = fim_spans.rest_of_line(text, dice)
        begin -= len(forced_prefix_of(text[:begin]))
        if end - begin < 2:
            continue
        asked += 1
        prompt = torch.tensor([_prompt(text, begin, end, context, fill, tokenizer)], device=device)
        with products(device):
            out = model.generate(  # type: ignore[operator]
                prompt, attention_mask=torch.ones_like(prompt), do_sample=False, max_new_tokens=32,
                eos_token_id=tokenizer.end, pad_token_id=tokenizer.pad,
            )[0, prompt.shape[1] :].tolist()  # fmt: skip
        said = tokenizer.decode([i for i in out if i != tokenizer.end]).split("\n")[0]
        right += said.rstrip() == text[begin:end].rstrip()
    share = right / asked
    name = "rest_of_line_exact" if fill else "rest_of_line_exact_prefix_only"
    return {name: share, f"{name}_error": (share * (1 - share) / asked) ** 0.5, "asked": asked}
