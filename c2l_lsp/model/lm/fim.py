"""Fill-in-the-middle by model family: which tokens, in which order. A new family is a new row.

Sources: the tokenizer files and papers of Qwen2.5-Coder, StarCoder2, Code Llama, DeepSeek-Coder, Codestral, Granite.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

ORDERS = ("psm", "spm", "joined")


class _Vocabulary(Protocol):
    def convert_tokens_to_ids(self, tokens: str) -> int | None: ...

    @property
    def unk_token_id(self) -> int | None: ...


@dataclass(frozen=True)
class FimFamily:
    """Token texts of one family, and one of ORDERS."""

    name: str
    prefix: str
    suffix: str
    middle: str
    order: str = "psm"
    stops: tuple[str, ...] = ()


FAMILIES = (
    FimFamily(
        "qwen2.5-coder, c2l-nano",
        "<|fim_prefix|>",
        "<|fim_suffix|>",
        "<|fim_middle|>",
        stops=("<|endoftext|>", "<|fim_pad|>", "<|file_sep|>", "<|repo_name|>"),
    ),
    FimFamily(
        "starcoder2, granite-3",
        "<fim_prefix>",
        "<fim_suffix>",
        "<fim_middle>",
        stops=("<|endoftext|>", "<file_sep>", "<repo_name>", "<fim_pad>"),
    ),
    FimFamily("code-llama", "▁<PRE>", "▁<SUF>", "▁<MID>", stops=("▁<EOT>", "</s>")),
    FimFamily(
        "deepseek-coder",
        "<｜fim▁begin｜>",
        "<｜fim▁hole｜>",
        "<｜fim▁end｜>",
        stops=("<｜end▁of▁sentence｜>", "<|EOT|>"),
    ),
    FimFamily("codestral", "[PREFIX]", "[SUFFIX]", "[MIDDLE]", order="spm", stops=("</s>",)),
)


@dataclass(frozen=True)
class FimTokens:
    """A family resolved to the ids of one tokenizer."""

    family: str
    prefix: int
    suffix: int
    middle: int
    order: str
    stops: frozenset[int]

    def prompt(self, before: list[int], after: list[int]) -> list[int]:
        """Ids of a prompt that asks for what stands between `before` and `after`.

        psm (Qwen, StarCoder, DeepSeek, Code Llama): P before S after M.
        spm (Codestral): S after P before, no middle token.
        joined (our own models): P S after M before, so that the answer goes on directly from the text before it.
        """
        if self.order == "joined":
            return [self.prefix, self.suffix, *after, self.middle, *before]
        if self.order == "spm":
            return [self.suffix, *after, self.prefix, *before]
        return [self.prefix, *before, self.suffix, *after, self.middle]


def resolve_fim(tokenizer: _Vocabulary, order: str | None = None) -> FimTokens | None:
    """The family whose three tokens this tokenizer knows; None for a model without fill-in-the-middle.

    `order`: what the model's own config says it was trained in (one of ORDERS), None for its family's.
    """

    def known(token: str) -> int | None:
        index = tokenizer.convert_tokens_to_ids(token)
        return None if index is None or index < 0 or index == tokenizer.unk_token_id else int(index)

    for family in FAMILIES:
        ids = [known(token) for token in (family.prefix, family.suffix, family.middle)]
        if any(index is None for index in ids):
            continue
        first, second, third = (int(index) for index in ids if index is not None)
        stops = frozenset(index for token in family.stops if (index := known(token)) is not None)
        chosen = order if order in ORDERS else family.order
        return FimTokens(family.name, first, second, third, chosen, stops)
    return None
