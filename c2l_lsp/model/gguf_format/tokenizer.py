"""The tokenizer in a GGUF file as tokenizer.json, for both kinds: byte-level BPE and SentencePiece BPE.

To add a byte-level pre-tokenizer, add its name in llama.cpp (`tokenizer.ggml.pre`) to _PATTERNS. transformers converts
these tokenizers too, but with one pattern for all of them, so that numbers and punctuation are cut unlike in training.
"""

from __future__ import annotations

from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

from c2l_lsp.errors import ModelError
from c2l_lsp.model.gguf_format.header import Header

_GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
_LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_QWEN2 = _LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}")
_TEKKEN = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*"
    r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_DIGITS = (r"\p{N}", _GPT2)
_PATTERNS: dict[str, tuple[str, ...]] = {
    "default": (_GPT2,), "gpt-2": (_GPT2,), "qwen2": (_QWEN2,), "deepseek-r1-qwen": (_QWEN2,), "llama-bpe": (_LLAMA3,),
    "dbrx": (_LLAMA3,), "smollm": _DIGITS, "starcoder": _DIGITS, "refact": _DIGITS, "tekken": (_TEKKEN,),
    "deepseek-coder": (r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", r"[一-龥ࠀ-一가-퟿]+", r"\p{N}"),
}  # fmt: skip
"""Patterns that a text is cut by, one after another, of every byte-level pre-tokenizer."""
_COMPOSED = {"qwen2", "deepseek-r1-qwen"}
"""Pre-tokenizers whose texts are composed (NFC) first."""
_UNKNOWN, _CONTROL, _USER_DEFINED = 2, 3, 4
_NAMED = {"bos_token": "bos", "eos_token": "eos", "unk_token": "unknown", "pad_token": "padding"}


def tokens_of(header: Header) -> list[str]:
    """The texts of all tokens, by id. Raises ModelError if there are none or two are equal."""
    tokens = header.metadata.get("tokenizer.ggml.tokens")
    if not isinstance(tokens, list) or not tokens or not all(isinstance(token, str) for token in tokens):
        raise ModelError(f"{header.path} holds no tokenizer, so it cannot be used alone.")
    if len(set(tokens)) != len(tokens):
        raise ModelError(f"{header.path} is damaged: its tokenizer holds a token twice.")
    return tokens


def tokenizer_files(header: Header) -> tuple[str, dict[str, Any]]:
    """(tokenizer.json, content of tokenizer_config.json). Raises ModelError if the tokenizer is of no known kind."""
    tokens = tokens_of(header)
    kind = header.metadata.get("tokenizer.ggml.model")
    if kind == "gpt2":
        tokenizer = _byte_level(header, tokens)
    elif kind == "llama":
        tokenizer = _sentence_piece(header, tokens)
    else:
        raise ModelError(f"{header.path} has a tokenizer of the kind {kind!s:.40}; gpt2 and llama are known.")
    kinds = _column(header, "token_type", len(tokens))
    for wanted, add in ((_CONTROL, tokenizer.add_special_tokens), (_USER_DEFINED, tokenizer.add_tokens)):
        texts = [token for token, kind in zip(tokens, kinds, strict=True) if kind == wanted]
        add([AddedToken(text, special=wanted == _CONTROL, normalized=False) for text in texts if text])
    return tokenizer.to_str(), {"tokenizer_class": "PreTrainedTokenizerFast", **_named_tokens(header, tokens)}


def _named_tokens(header: Header, tokens: list[str]) -> dict[str, str]:
    named = {}
    for field, name in _NAMED.items():
        index = header.metadata.get(f"tokenizer.ggml.{name}_token_id")
        if isinstance(index, int) and 0 <= index < len(tokens):
            named[field] = tokens[index]
    return named


def _column(header: Header, name: str, length: int) -> list[Any]:
    """One value for every token."""
    values = header.metadata.get(f"tokenizer.ggml.{name}")
    if not isinstance(values, list) or len(values) != length:
        raise ModelError(f"{header.path} is damaged: its tokenizer has no {name} for every token.")
    return values


def _byte_level(header: Header, tokens: list[str]) -> Tokenizer:
    name = str(header.metadata.get("tokenizer.ggml.pre", "default"))
    if name not in _PATTERNS:
        raise ModelError(f"{header.path} cuts texts as {name:.40}, which c2l-lsp does not know; convert it elsewhere.")
    merges = header.metadata.get("tokenizer.ggml.merges")
    if not isinstance(merges, list):
        raise ModelError(f"{header.path} is damaged: its tokenizer has no merges.")
    pairs = [(left, right) for left, _, right in (str(merge).partition(" ") for merge in merges)]
    vocabulary = {token: index for index, token in enumerate(tokens)}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=pairs))
    cuts = [pre_tokenizers.Split(Regex(pattern), behavior="isolated") for pattern in _PATTERNS[name]]
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [*cuts, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    if name in _COMPOSED:
        tokenizer.normalizer = normalizers.NFC()
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def _sentence_piece(header: Header, tokens: list[str]) -> Tokenizer:
    scores, kinds = _column(header, "scores", len(tokens)), _column(header, "token_type", len(tokens))
    unknown = next((token for token, kind in zip(tokens, kinds, strict=True) if kind == _UNKNOWN), None)
    vocabulary = {token: index for index, token in enumerate(tokens)}
    model = models.BPE(
        vocab=vocabulary,
        merges=_merges(tokens, scores, vocabulary),
        unk_token=unknown,
        fuse_unk=True,
        byte_fallback=True,
    )
    tokenizer = Tokenizer(model)
    prefix = bool(header.metadata.get("tokenizer.ggml.add_space_prefix", True))
    spaces = normalizers.Replace(" ", "▁")
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), spaces] if prefix else [spaces])
    parts = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    tokenizer.decoder = decoders.Sequence([*parts, decoders.Strip(" ", 1, 0)] if prefix else parts)
    return tokenizer


def _merges(tokens: list[str], scores: list[float], vocabulary: dict[str, int]) -> list[tuple[str, str]]:
    """The merges whose order gives SentencePiece's result: the pair with the best score of its union first."""
    found = []
    for token, score in zip(tokens, scores, strict=True):
        cuts = ((token[:at], token[at:]) for at in range(1, min(len(token), 64)))
        known = [(left, right) for left, right in cuts if left in vocabulary and right in vocabulary]
        found += [
            (-score, left, right) for left, right in sorted(known, key=lambda pair: [vocabulary[p] for p in pair])
        ]
    found.sort(key=lambda merge: (merge[0], -len(merge[1]), -len(merge[2])))
    return [(left, right) for _, left, right in found]
