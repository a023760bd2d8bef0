"""The training loss and the evaluation: bits per byte, loss of FIM middles, exact rest-of-line completions."""

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
from c2l_lab.train.base.examples import IGNORE, Batch, fim_tokens, make_examples, pack, split_text, to_batch
from c2l_lab.train.base.examples import Recipe as ExampleRecipe
from c2l_lsp.model.lm.token_healing import forced_prefix_of

Loss = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]


def attention_mask_of(segments: Tensor) -> Tensor:
    """Return the mask (B, 1, T, T), bool, of causal attention within each file. `segments` (B, T) are file numbers."""
    T = segments.shape[1]
    causal = torch.ones(T, T, dtype=torch.bool, device=segments.device).tril()
    return ((segments[:, :, None] == segments[:, None, :]) & causal)[:, None]


def supports_bf16(device: torch.device) -> bool:
    """Return whether the device has bf16 matrix instructions. Otherwise bf16 is emulated."""
    return device.type != "cpu" or torch.cpu._is_avx512_bf16_supported()


def bf16_autocast(device: torch.device) -> torch.autocast:
    """Return an autocast to bf16 if the device supports it. Emulated bf16 takes four times as long as fp32."""
    return torch.autocast(device.type, torch.bfloat16, enabled=supports_bf16(device))


def packed_loss(model: torch.nn.Module) -> Loss:
    """Return a function of (ids, positions, segments, labels), each (B, T), that computes the loss.

    The loss is the sum in nat over all labels except IGNORE, an fp32 scalar. Matrix products use `bf16_autocast`; the
    softmax is in fp32.
    """

    def loss(ids: Tensor, positions: Tensor, segments: Tensor, labels: Tensor) -> Tensor:
        # transformers accepts a ready-made mask only as a dict by layer type
        flex = model.config._attn_implementation == FLEX  # type: ignore[union-attr]
        mask = {"full_attention": block_mask(segments)} if flex else attention_mask_of(segments)
        with bf16_autocast(ids.device):
            hidden = model.model(  # type: ignore[operator]
                input_ids=ids, attention_mask=mask, position_ids=positions, use_cache=False
            ).last_hidden_state
            logits = model.lm_head(hidden)  # type: ignore[operator]
        return cross_entropy(logits.float().flatten(0, 1), labels.flatten(), ignore_index=IGNORE, reduction="sum")

    return loss


def to_tensors(batch: Batch, device: torch.device) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return (ids, positions, segments, labels) of a batch on `device`."""
    ids, positions, segments, labels = (
        torch.from_numpy(a).to(device, non_blocking=True)
        for a in (batch.ids, batch.positions, batch.segments, batch.labels)
    )
    return ids, positions, segments, labels


@dataclass(frozen=True)
class Evaluation:
    """Results on validation files, which are never trained on."""

    nat_per_token: float
    bits_per_byte: float
    middle_nat_per_token: float

    def to_json(self) -> dict[str, float]:
        """Return the results, rounded to four digits."""
        return {name: round(value, 4) for name, value in vars(self).items()}


class TuneSet:
    """A fixed sample of rows from the validation files."""

    def __init__(self, documents: Sequence[Document], tokenizer: CodeTokenizer, length: int, rows: int) -> None:
        """Draw about `rows` rows of plain text and half as many FIM examples, the same ones in every run."""
        rng = random.Random(20)  # noqa: S311 - the same sample in every run
        plain = ExampleRecipe(length, 0.0)
        chunks = [chunk for d in sorted(documents, key=lambda d: d.id) for chunk in split_text(d.text, length, rng)]
        chosen = rng.sample(chunks, min(len(chunks), rows))
        tokens = make_examples([(chunk, False) for chunk in chosen], plain, tokenizer, rng)
        self._bytes = sum(len(tokenizer.decode(ids[1:]).encode()) for ids in tokens)
        self._plain = pack(tokens, length)
        made = (
            fim_tokens(fim_spans.split(p, rng), tokenizer, length)
            for p in rng.sample(chunks, min(len(chunks), rows // 2))
        )
        self._middles = [one for one in made if one]
        self._length, self._tokenizer = length, tokenizer

    def _sum(
        self, loss: Loss, rows: Sequence[list[list[int]]], device: torch.device, begins: Sequence[int], width: int
    ) -> tuple[float, int]:
        """Return (summed loss, number of tokens). Tokens of row i before `begins[i]` do not count."""
        total, count = 0.0, 0
        for at in range(0, len(rows), width):
            part = [*rows[at : at + width]]
            part += [[]] * (width - len(part))  # a fixed shape avoids recompilation
            batch = to_batch(part, self._length, self._tokenizer.pad)
            for b, begin in enumerate(begins[at : at + width]):
                batch.labels[b, : max(0, begin - 1)] = IGNORE
            count += int((batch.labels != IGNORE).sum())
            total += float(loss(*to_tensors(batch, device)))
        return total, count

    @torch.no_grad()
    def measure(self, loss: Loss, device: torch.device, width: int) -> Evaluation:
        """Evaluate the loss of plain text and of FIM middles, `width` rows at a time."""
        total, count = self._sum(loss, self._plain, device, [0] * len(self._plain), width)
        fim_rows, begins = [[ids] for ids, _ in self._middles], [begin for _, begin in self._middles]
        middle, middles = self._sum(loss, fim_rows, device, begins, width)
        return Evaluation(total / count, total / math.log(2) / self._bytes, middle / max(1, middles))


def _prompt(text: str, begin: int, end: int, context: int, fill: bool, tokenizer: CodeTokenizer) -> list[int]:
    """Return the prompt for a span of `text`: a FIM prompt if `fill`, else END and the text before it."""
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
    """Complete the rest of random lines greedily; return the share of exact matches and its standard error.

    The prompt has at most `context` tokens of the file: both sides in a FIM prompt (`fill`), or only the text before. A
    span starts at a random position of a line that is not blank, moved back to where a prompt of the engine would
    end. Trailing spaces are ignored.
    """
    rng = random.Random(seed)  # noqa: S311 - the same sample in every run
    exact = asked = 0
    chosen = sorted(documents, key=lambda d: d.id)
    while asked < count:
        text = rng.choice(chosen).text
        begin, end = fim_spans.rest_of_line(text, rng)
        begin -= len(forced_prefix_of(text[:begin]))
        if end - begin < 2:
            continue
        asked += 1
        prompt = torch.tensor([_prompt(text, begin, end, context, fill, tokenizer)], device=device)
        with bf16_autocast(device):
            out = model.generate(  # type: ignore[operator]
                prompt, attention_mask=torch.ones_like(prompt), do_sample=False, max_new_tokens=32,
                eos_token_id=tokenizer.end, pad_token_id=tokenizer.pad,
            )[0, prompt.shape[1] :].tolist()  # fmt: skip
        completed = tokenizer.decode([i for i in out if i != tokenizer.end]).split("\n")[0]
        exact += completed.rstrip() == text[begin:end].rstrip()
    share = exact / asked
    name = "rest_of_line_exact" if fill else "rest_of_line_exact_prefix_only"
    return {name: share, f"{name}_error": (share * (1 - share) / asked) ** 0.5, "asked": asked}
