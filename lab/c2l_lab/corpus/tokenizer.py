"""The base model's tokenizer: byte-level BPE with a pre-tokenizer for Python.

The pre-tokenizer splits the text as follows. A newline and the indentation after it are one piece, a run of spaces is
a piece, each digit is a piece, and no other piece crosses the end of a line. As a result, a completion can stop
exactly at the end of a line, and indentation costs one token.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from c2l_lsp.errors import TrainingError

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

END = "<|endoftext|>"
PREFIX, SUFFIX, MIDDLE, PAD = "<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>", "<|fim_pad|>"
REPO, FILE = "<|repo_name|>", "<|file_sep|>"
SPECIAL = (END, PREFIX, SUFFIX, MIDDLE, PAD, REPO, FILE)  # ids 0 … 6, in this order

_PIECES = "|".join(
    (
        r"[\r\n]+[ \t]*",  # line ends and the indentation that follows
        r"\p{N}",
        r"[^\r\n\p{L}\p{M}\p{N}]?[\p{L}\p{M}]+",  # a word and one sign before it: `.append`, `_name`, ` self`
        r" ?[^\s\p{L}\p{M}\p{N}]+",  # signs
        r"[ \t]+",
        r"\s",  # other white space, one character at a time
    )
)


def train_tokenizer(texts: Iterable[str], vocabulary: int) -> Tokenizer:
    """Train a byte-level BPE on `texts`. `vocabulary` counts the special tokens and the 256 bytes as well.

    Raises TrainingError if the vocabulary is too small for them.
    """
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

    if vocabulary < len(SPECIAL) + 256:
        raise TrainingError(f"A vocabulary of {vocabulary} entries is too small for the 256 bytes. Use at least 512.")
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_PIECES), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    made.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=list(SPECIAL),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        max_token_length=24,
        show_progress=False,
    )
    made.train_from_iterator(texts, trainer)
    return made


def save(tokenizer: Tokenizer, folder: Path, context: int = 2048) -> None:
    """Write `tokenizer` to `folder` in the format of `AutoTokenizer.from_pretrained`."""
    from transformers import PreTrainedTokenizerFast

    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=END,
        pad_token=PAD,
        model_max_length=context,
        additional_special_tokens=[PREFIX, SUFFIX, MIDDLE, REPO, FILE],
        clean_up_tokenization_spaces=False,
    )
    folder.mkdir(parents=True, exist_ok=True)
    wrapped.save_pretrained(folder)
    file = folder / "tokenizer_config.json"
    settings = json.loads(file.read_text("utf-8")) | {
        "tokenizer_class": "PreTrainedTokenizerFast"
    }  # the same class in every version
    file.write_text(json.dumps(settings, indent=1) + "\n", "utf-8")


class CodeTokenizer:
    """Converts text to ids and back for training. Special tokens in a file's text are treated as ordinary text."""

    def __init__(self, folder: Path) -> None:
        """Load `tokenizer.json` from `folder`. Raises TrainingError if it is missing or lacks a special token."""
        from tokenizers import Tokenizer

        try:
            self._inner = Tokenizer.from_file(str(folder / "tokenizer.json"))
        except Exception as error:  # the library raises bare Exception
            raise TrainingError(f"{folder} contains no tokenizer.json: run `c2l-lab train tokenizer` first.") from error
        self._inner.encode_special_tokens = True
        ids: list[int] = []
        for token in SPECIAL:
            number = self._inner.token_to_id(token)
            if number is None:
                raise TrainingError(f"The tokenizer in {folder} lacks {token}.")
            ids.append(number)
        self.end, self.prefix, self.suffix, self.middle, self.pad = ids[:5]
        self.vocabulary: int = self._inner.get_vocab_size()

    def plain(self) -> Tokenizer:
        """Return a copy for saving, in which special tokens in a text are recognised."""
        from tokenizers import Tokenizer

        made = Tokenizer.from_str(self._inner.to_str())
        made.encode_special_tokens = False
        return made

    def encode(self, text: str) -> list[int]:
        """Return the ids of `text`, without added special tokens."""
        ids: list[int] = self._inner.encode(text, add_special_tokens=False).ids
        return ids

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the ids of each text, without added special tokens."""
        return [made.ids for made in self._inner.encode_batch_fast(list(texts), add_special_tokens=False)]

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of `ids`, special tokens included."""
        text: str = self._inner.decode(list(ids), skip_special_tokens=False)
        return text


def pretrained(folder: Path) -> PreTrainedTokenizerFast:
    """Load a saved tokenizer with `transformers`."""
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(folder)
