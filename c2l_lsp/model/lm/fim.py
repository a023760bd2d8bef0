"""Fill-in-the-middle prompts, by model family.

To add a base-model family, add a row to FAMILIES: the texts of its three FIM tokens, the order of the prompt's parts
(one of ORDERS), and the tokens that end a completion. A new order also needs a case in `FimTokens.prompt`. A loaded
model belongs to the first family whose three FIM tokens its tokenizer has, so the position of a row matters if families
share tokens. A model without FIM tokens gets the text before the cursor only. `test_base.py` checks every row.

Architectures in `runtime.fusion._ARCHITECTURES` use our fast forward pass; any other one runs by transformers.

Sources: the tokenizer files and papers of Qwen2.5-Coder, StarCoder2, Code Llama, DeepSeek-Coder, Codestral, Granite.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

ORDERS = ("psm", "spm", "joined")
"""Orders of prefix, suffix and middle in a prompt; see `FimTokens.prompt`."""


class _Vocabulary(Protocol):
    def convert_tokens_to_ids(self, tokens: str) -> int | None: ...

    @property
    def unk_token_id(self) -> int | None: ...


@dataclass(frozen=True)
class FimFamily:
    """FIM tokens of one family, as text; `order` is one of ORDERS, `stops` are the tokens that end a completion."""

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

    def prompt(self, before: list[int], after: list[int], line: Sequence[int] = ()) -> list[int]:
        """The prompt for a cursor after `before` and `line`, with `after` behind it. P, S, M are the FIM tokens.

        | order | prompt | models |
        |---|---|---|
        | psm | P before S after M line | Qwen, StarCoder, Granite, DeepSeek, Code Llama |
        | spm | S after P before line | Codestral |
        | joined | P S after M before line | ours; the answer directly continues the text before it |

        In the order psm the model has filled in `line` already, so that text typed there is appended to the prompt.
        """
        if self.order == "joined":
            return [self.prefix, self.suffix, *after, self.middle, *before, *line]
        if self.order == "spm":
            return [self.suffix, *after, self.prefix, *before, *line]
        return [self.prefix, *before, self.suffix, *after, self.middle, *line]

    def text_before(self, prompt: list[int]) -> list[int]:
        """`before` and `line` of a prompt that `prompt` made; all ids of any other prompt."""
        if self.suffix not in prompt:
            return prompt
        if self.order == "psm":
            suffix = prompt.index(self.suffix)
            return [*prompt[1:suffix], *prompt[prompt.index(self.middle, suffix) + 1 :]]
        return prompt[prompt.index(self.middle if self.order == "joined" else self.prefix) + 1 :]


def resolve_fim(tokenizer: _Vocabulary, order: str | None = None) -> FimTokens | None:
    """The first family whose three FIM tokens the tokenizer has, as ids; None if there is none.

    `order` is the order that the model's config names; an unknown one or None means the family's.
    """

    def id_of(token: str) -> int | None:
        index = tokenizer.convert_tokens_to_ids(token)
        return None if index is None or index < 0 or index == tokenizer.unk_token_id else int(index)

    for family in FAMILIES:
        ids = [id_of(token) for token in (family.prefix, family.suffix, family.middle)]
        if any(index is None for index in ids):
            continue
        prefix, suffix, middle = (int(index) for index in ids if index is not None)
        stops = frozenset(index for token in family.stops if (index := id_of(token)) is not None)
        chosen = order if order in ORDERS else family.order
        return FimTokens(family.name, prefix, suffix, middle, chosen, stops)
    return None
