"""Finds models of Ollama and LM Studio on disk, by name, and lists them. Neither program has to run.

| program | names | files |
|---|---|---|
| Ollama | ollama:NAME:TAG, ollama:OWNER/NAME:TAG | manifests/HOST/OWNER/NAME/TAG is JSON that names a blob |
| LM Studio | lmstudio:PUBLISHER/NAME, lmstudio:PUBLISHER/NAME/FILE | PUBLISHER/NAME/*.gguf |
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import msgspec

from c2l_lsp import regular_files
from c2l_lsp.errors import ModelError

OLLAMA, LM_STUDIO = "ollama:", "lmstudio:"
_DEFAULT_HOST, _DEFAULT_OWNER, _DEFAULT_TAG = "registry.ollama.ai", "library", "latest"
_MODEL_LAYER = "application/vnd.ollama.image.model"
_MAX_MANIFEST_BYTES = 1 << 20
_MAX_LISTED = 1000
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_PART = re.compile(r"[\w.+-]+(?: [\w.+-]+)*")


class _Layer(msgspec.Struct, rename="camel"):
    digest: str
    media_type: str = ""


class _Manifest(msgspec.Struct):
    layers: list[_Layer] = []


@dataclass(frozen=True)
class LocalModel:
    """A GGUF file with the name that `c2l.model.path` takes."""

    name: str
    path: Path


def is_name(text: str) -> bool:
    """Whether a model is named by its program, not by a path."""
    return text.startswith((OLLAMA, LM_STUDIO))


def find(name: str) -> Path:
    """The GGUF file of a name. Raises ModelError if there is none, or more than one."""
    return _find_ollama(name.removeprefix(OLLAMA)) if name.startswith(OLLAMA) else _find_lm_studio(name)


def installed() -> Iterator[LocalModel]:
    """All models of both programs, at most 1,000 of each. What cannot be read is left out."""
    for count, (root, manifest) in enumerate(_manifests()):
        if count >= _MAX_LISTED:
            break
        try:
            yield LocalModel(_ollama_name(manifest.relative_to(root / "manifests")), _blob(root, manifest))
        except ModelError:
            continue
    for count, (root, file) in enumerate(_lm_studio_files()):
        if count >= _MAX_LISTED:
            break
        yield LocalModel(LM_STUDIO + file.relative_to(root).as_posix(), file)


def _ollama_roots() -> list[Path]:
    if own := os.environ.get("OLLAMA_MODELS"):
        return [Path(own).expanduser()]
    return [Path.home() / ".ollama" / "models", Path("/usr/share/ollama/.ollama/models")]


def _lm_studio_roots() -> list[Path]:
    return [Path.home() / ".lmstudio" / "models", Path.home() / ".cache" / "lm-studio" / "models"]


def _find_ollama(name: str) -> Path:
    stem, _, tag = name.partition(":")
    parts = [*stem.split("/"), tag or _DEFAULT_TAG]
    parts = [_DEFAULT_OWNER, *parts] if len(parts) == 2 else parts
    parts = [_DEFAULT_HOST, *parts] if len(parts) == 3 else parts
    if len(parts) != 4 or not all(map(_is_plain, parts)):
        raise ModelError(f"c2l.model.path is {OLLAMA}{name[:100]}, which is no name of an Ollama model.")
    for root in _ollama_roots():
        manifest = root.joinpath("manifests", *parts)
        if os.path.lexists(manifest):
            return _blob(root, manifest)
    known = [_ollama_name(path.relative_to(root / "manifests")) for root, path in _manifests()]
    raise ModelError(f"Ollama has no model {name} on this machine; {_choice(known)} (or run ollama pull {name}).")


def _is_plain(part: str) -> bool:
    return _PART.fullmatch(part) is not None and part not in (".", "..")


def _blob(root: Path, manifest: Path) -> Path:
    """The file with the weights that a manifest names."""
    try:
        content = regular_files.read(manifest.parent, manifest.name, _MAX_MANIFEST_BYTES)
        layers = msgspec.json.decode(content, type=_Manifest).layers
    except (OSError, ValueError) as error:
        raise ModelError(f"Ollama's {manifest} cannot be read ({error}).") from error
    digests = [layer.digest for layer in layers if layer.media_type == _MODEL_LAYER]
    if len(digests) != 1 or not _DIGEST.fullmatch(digests[0]):
        raise ModelError(f"Ollama's {manifest} does not name one file with weights; c2l-lsp cannot use this model.")
    blob = root / "blobs" / digests[0].replace(":", "-")
    if not blob.exists():
        raise ModelError(f"Ollama's file {blob} is missing; pull the model again.")
    return blob


def _ollama_name(parts: Path) -> str:
    host, owner, stem, tag = parts.parts
    shown = [host, owner, stem] if host != _DEFAULT_HOST else [owner, stem] if owner != _DEFAULT_OWNER else [stem]
    return f"{OLLAMA}{'/'.join(shown)}:{tag}"


def _manifests() -> Iterator[tuple[Path, Path]]:
    for root in _ollama_roots():
        for path in sorted(_glob(root / "manifests", "*/*/*/*")):
            yield root, path


def _find_lm_studio(name: str) -> Path:
    parts = name.removeprefix(LM_STUDIO).split("/")
    if len(parts) not in (2, 3) or not all(map(_is_plain, parts)):
        raise ModelError(f"c2l.model.path is {name[:100]}; LM Studio's models are named {LM_STUDIO}PUBLISHER/NAME.")
    known = [(LM_STUDIO + file.relative_to(root).as_posix(), file) for root, file in _lm_studio_files()]
    wanted = LM_STUDIO + "/".join(parts)
    found = [(full, file) for full, file in known if full == wanted or full.startswith(f"{wanted}/")]
    if not found:
        raise ModelError(f"LM Studio has no model {'/'.join(parts)} on this machine; {_choice([n for n, _ in known])}.")
    if len(found) > 1:
        if len({full for full, _ in found}) == 1:
            raise ModelError(f"Two files are named {wanted}: {found[0][1]} and {found[1][1]}. Give the path of one.")
        raise ModelError(f"{wanted} has {len(found)} files; name one of them: {', '.join(n for n, _ in found[:8])}.")
    return found[0][1]


def _lm_studio_files() -> Iterator[tuple[Path, Path]]:
    for root in _lm_studio_roots():
        for path in sorted(_glob(root, "*/*/*.gguf")):
            if not path.name.startswith("mmproj"):  # the picture encoder beside a model
                yield root, path


def _glob(root: Path, pattern: str) -> list[Path]:
    try:
        return [path for path in root.glob(pattern) if path.is_file()]
    except OSError:
        return []


def _choice(known: list[str]) -> str:
    if not known:
        return "there is none at all"
    return f"there are {', '.join(known[:8])}{' and more' if len(known) > 8 else ''}"
