"""SentencePiece tokenizers of GGUF files give SentencePiece's tokens; byte-level ones cut as in training."""

from __future__ import annotations

import random
from itertools import pairwise
from pathlib import Path

import pytest
import transformers

from c2l_lsp.errors import ModelError
from c2l_lsp.model.gguf_format.header import Header
from c2l_lsp.model.gguf_format.tokenizer import tokenizer_files

BYTES = [f"<0x{byte:02X}>" for byte in range(256)]
PIECES = ["▁", "d", "e", "f", "r", "t", "u", "n", "i", "\n", "▁▁", "re", "tu", "rn", "▁de", "de", "def", "▁def", "ret",
          "return", "▁▁▁▁", "in", "turn", "nt", "int", "▁int", "fi"]  # fmt: skip


def sentence_piece(**changes: object) -> Header:
    tokens = ["<unk>", "<s>", "</s>", *BYTES, *PIECES]
    metadata = {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.scores": [0.0] * 259 + [-float(n) for n in range(len(PIECES))],
        "tokenizer.ggml.token_type": [2, 3, 3, *[6] * 256, *[1] * len(PIECES)],
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
        "tokenizer.ggml.unknown_token_id": 0,
        **{f"tokenizer.ggml.{name}": value for name, value in changes.items()},
    }
    return Header(Path("tiny.gguf"), 0, metadata)


def loaded(header: Header, folder: Path) -> transformers.PreTrainedTokenizerBase:
    import msgspec

    text, config = tokenizer_files(header)
    (folder / "tokenizer.json").write_text(text, encoding="utf-8")
    (folder / "tokenizer_config.json").write_bytes(msgspec.json.encode(config))
    return transformers.PreTrainedTokenizerFast.from_pretrained(folder)


def reference(text: str, prefix: bool) -> list[str]:
    """SentencePiece's BPE: merge the pair whose union scores best, the leftmost of equals, until there is none."""
    scores = {piece: -n for n, piece in enumerate(PIECES)}
    parts = list(("▁" if prefix and text else "") + text.replace(" ", "▁"))
    while True:
        pairs = [(scores[a + b], -n) for n, (a, b) in enumerate(pairwise(parts)) if a + b in scores]
        if not pairs:
            return [byte for part in parts for byte in ([part] if part in scores else _bytes(part))]
        at = -max(pairs)[1]
        parts[at : at + 2] = [parts[at] + parts[at + 1]]


def _bytes(letter: str) -> list[str]:
    return [BYTES[byte] for byte in letter.encode()]


@pytest.mark.parametrize("prefix", [True, False])
def test_sentence_piece_tokens_are_those_of_its_own_algorithm(prefix: bool, tmp_path: Path) -> None:
    tokenizer = loaded(sentence_piece(add_space_prefix=prefix), tmp_path)
    rng = random.Random(0)
    for _ in range(300):
        text = "".join(rng.choices("defrtuni \nxé", k=rng.randint(1, 30)))
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        assert tokenizer.convert_ids_to_tokens(ids) == reference(text, prefix), text
        assert tokenizer.decode(ids) == text


def test_numbers_are_cut_as_in_training(tmp_path: Path) -> None:
    from tokenizers import pre_tokenizers

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    merged = ["12", "123", "1234"]
    metadata = {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.tokens": [*letters, *merged],
        "tokenizer.ggml.token_type": [1] * (len(letters) + 3),
        "tokenizer.ggml.merges": ["1 2", "12 3", "123 4"],
    }
    cuts = {}
    for pattern in ("gpt-2", "llama-bpe", "qwen2", "smollm", "deepseek-coder", "tekken"):
        header = Header(Path("x.gguf"), 0, {**metadata, "tokenizer.ggml.pre": pattern})
        tokenizer = loaded(header, tmp_path)
        cuts[pattern] = tokenizer.convert_ids_to_tokens(tokenizer("1234")["input_ids"])
    assert cuts.pop("gpt-2") == ["1234"]
    assert cuts.pop("llama-bpe") == ["123", "4"]
    assert all(cut == ["1", "2", "3", "4"] for cut in cuts.values()), cuts


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"scores": [1.0]}, "no scores for every token"),
        ({"token_type": None}, "no token_type"),
        ({"tokens": ["a", "a"]}, "holds a token twice"),
        ({"tokens": []}, "holds no tokenizer"),
    ],
)
def test_damage_is_one_sentence(changes: dict[str, object], sentence: str) -> None:
    with pytest.raises(ModelError, match=sentence):
        tokenizer_files(sentence_piece(**changes))
