"""Lists the models on this machine that `c2l.model` can name: shipped ones, the Hub's cache, Ollama, LM Studio.

Only headers, configurations and tokenizers are read; no model is loaded.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import msgspec

from c2l_lsp.errors import ModelError
from c2l_lsp.model.gguf_format import conversion, families, sources
from c2l_lsp.model.gguf_format.header import Header, read_header
from c2l_lsp.model.gguf_format.tokenizer import tokens_of
from c2l_lsp.model.lm import base, model_folder
from c2l_lsp.model.lm.fim import resolve_fim

_CHAT = re.compile(r"(?i)instruct|\bchat\b|-it\b|[-_]it[-_.]")
_MAX_LISTED = 1000


@dataclass(frozen=True)
class LocalModel:
    """One model. `name` is the value of `c2l.model.id` (shipped, Hub) or `c2l.model.path`; `gb` its size on disk.

    `fim` names the family of its fill-in-the-middle tokens, "" if it has none. `ready`: it loads without a conversion.
    `note` is a sentence about what limits its use, "" if nothing does.
    """

    name: str
    source: str
    gb: float
    architecture: str = ""
    fim: str = ""
    ready: bool = True
    note: str = ""

    def to_dict(self) -> dict[str, Any]:
        """The model as plain JSON values."""
        return asdict(self)


def local_models() -> list[LocalModel]:
    """All models of this machine, the shipped ones first. Raises nothing: what cannot be read has a note."""
    return [*_shipped(), *_hub(), *_ollama_and_lm_studio()]


def describe_gguf(name: str, path: Path) -> LocalModel:
    """The row of a GGUF file."""
    source = name.partition(":")[0]
    try:
        header = read_header(path)
        architecture, tokens = header.architecture, tokens_of(header)
        families.family_of(header)
    except ModelError as error:
        return LocalModel(name, source, _gigabytes(path), note=str(error))
    about = " ".join([name, *(str(header.metadata.get(f"general.{key}", ""))[:200] for key in ("name", "finetune"))])
    return LocalModel(
        name,
        source,
        _gigabytes(path),
        architecture,
        fim_family(tokens),
        conversion.is_converted(path),
        _memory_note(header) or _note(about, fim_family(tokens)),
    )


def is_instruct(about: str) -> bool:
    """Whether a model's name says that it is trained for chat."""
    return _CHAT.search(about) is not None


def fim_family(tokens: Collection[str]) -> str:
    """The name of the family whose fill-in-the-middle tokens a vocabulary has; "" if there is none."""
    fim = resolve_fim(_Tokens(tokens))
    return fim.family if fim else ""


class _Tokens:
    """A vocabulary without its tokenizer."""

    unk_token_id = None

    def __init__(self, tokens: Collection[str]) -> None:
        self._ids = {token: index for index, token in enumerate(tokens)}

    def convert_tokens_to_ids(self, tokens: str) -> int | None:
        return self._ids.get(tokens)


def _note(about: str, fim: str) -> str:
    chat = "An instruct model, trained for chat: the base model of its family completes better."
    blind = "No fill-in-the-middle: the text after the cursor is not used."
    return " ".join([chat] * is_instruct(about) + [blind] * (not fim))


def _memory_note(header: Header) -> str:
    try:
        conversion.require_memory(header)
    except ModelError as error:
        return str(error)
    return ""


def _shipped() -> Iterator[LocalModel]:
    for name in base.SHIPPED:
        yield _describe_folder(name, "shipped", base.ASSETS / name)


def _hub() -> Iterator[LocalModel]:
    """Causal models in the cache of the Hugging Face Hub, the newest snapshot of each."""
    from huggingface_hub.constants import HF_HUB_CACHE

    for repository in sorted(Path(HF_HUB_CACHE).glob("models--*--*"))[:_MAX_LISTED]:
        snapshots = [path for path in repository.glob("snapshots/*") if (path / "config.json").is_file()]
        complete = [path for path in snapshots if any(path.glob("*.safetensors"))]
        if complete:
            newest = max(complete, key=lambda path: path.stat().st_mtime)
            model = _describe_folder("/".join(repository.name.split("--")[1:]), "hub", newest)
            if model.architecture:
                yield model


def _ollama_and_lm_studio() -> Iterator[LocalModel]:
    for model in sources.installed():
        yield describe_gguf(model.name, model.path)


def _describe_folder(name: str, source: str, folder: Path) -> LocalModel:
    size = sum(path.stat().st_size for path in folder.glob("*.safetensors")) / 1e9
    try:
        model_folder.check(folder)
        config = msgspec.json.decode((folder / "config.json").read_bytes(), type=dict[str, Any])
        tokenizer = msgspec.json.decode((folder / "tokenizer.json").read_bytes(), type=dict[str, Any])
        classes = [str(one) for one in config.get("architectures") or []]
    except (ModelError, OSError, ValueError, TypeError) as error:
        return LocalModel(name, source, size, note=str(error)[:300])
    if not any(one.endswith(("ForCausalLM", "ForConditionalGeneration")) for one in classes):
        return LocalModel(name, source, size, note="No language model that completes text.")
    fim = fim_family(_vocabulary(tokenizer))
    return LocalModel(name, source, size, str(config.get("model_type", ""))[:60], fim, note=_note(name, fim))


def _vocabulary(tokenizer: dict[str, Any]) -> list[str]:
    vocabulary = (tokenizer.get("model") or {}).get("vocab")
    known = [token for token in vocabulary if isinstance(token, str)] if isinstance(vocabulary, dict) else []
    added = [str(token.get("content", "")) for token in tokenizer.get("added_tokens") or [] if isinstance(token, dict)]
    return [*known, *added]


def _gigabytes(path: Path) -> float:
    try:
        return path.stat().st_size / 1e9
    except OSError:
        return 0.0
