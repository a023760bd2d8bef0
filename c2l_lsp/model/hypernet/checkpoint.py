"""Checkpoints of Code2LoRA: converts the published files once, then loads the converted copy.

| published file | kind | keys |
|---|---|---|
| `code2lora_direct.pt` | `static` | `state_dict`, `config`, `type_dims`, `args` |
| `code2lora_gru.pt` | `evo` | `{gru,head}_state`, `{gru,head}_config`, `type_dims`, `args`, `per_step_input` |

Keys that older files lack have defaults; the LoRA alpha is in `args` only. Loading a published file runs no code from
it (`published`). A converted folder holds `weights.safetensors` (fp32, names with the prefix `head.` or `gru.`) and
`checkpoint.json`, which is written last. Every defect raises CheckpointError with the name of the file. Source:
Code2LoRA, arXiv 2606.06492, and its published files.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import math
import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, TypeAlias, cast

import msgspec
import torch
from msgspec import Struct
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from c2l_lsp import regular_files
from c2l_lsp.errors import CheckpointError, StorageError
from c2l_lsp.model.hypernet.code2lora import Binding, Evo, Static
from c2l_lsp.model.hypernet.encoder import EmbeddingEncoder
from c2l_lsp.model.hypernet.gru import CommitGRU, GRUConfig
from c2l_lsp.model.hypernet.lora_head import PARENT_MODULE, Code2LoRAHead, HeadConfig
from c2l_lsp.model.hypernet.published import PUBLISHED_BASE, PublishedKind, download, file_sha256, safe_unpickle
from c2l_lsp.model.lm.base import BaseModel

CheckpointKind: TypeAlias = Literal["static", "evo", "text2lora"]
"""`static` and `evo` as in Code2LoRA; `text2lora` has the weights of `static` and exists in the laboratory only."""

WEIGHTS, MANIFEST = "weights.safetensors", "checkpoint.json"
_MAX_MANIFEST_BYTES = 1 << 20
_UNREADABLE = (OSError, SafetensorError, msgspec.MsgspecError, ValueError, KeyError, RuntimeError)
"""What reading a converted copy raises. RuntimeError: torch's, and RecursionError."""


class Manifest(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The content of `checkpoint.json`; the field names are stored.

    `base` is the name of the base model and `base_digest` its digest, "" if unknown. `sha256` is the digest of the
    published file or, for checkpoints trained by this project, of the weights. `training` holds the recipe of the
    latter and their scores on the tuning repositories.
    """

    kind: CheckpointKind
    head: HeadConfig
    gru: GRUConfig | None = None
    alpha: float = 32.0
    base: str = PUBLISHED_BASE
    base_digest: str = ""
    sha256: str = ""
    training: dict[str, bool | float | str] = {}


class Checkpoint(Struct, frozen=True):
    """A checkpoint in memory: its manifest, and its fp32 tensors by prefixed name."""

    manifest: Manifest
    tensors: dict[str, Tensor]

    @classmethod
    def from_modules(cls, manifest: Manifest, head: Code2LoRAHead, gru: CommitGRU | None = None) -> Checkpoint:
        """A checkpoint with copies of the weights of trained modules; `manifest.sha256` becomes their digest."""
        states = {"head.": head.state_dict()} | ({"gru.": gru.state_dict()} if gru else {})
        tensors = {p + n: t.detach().float().cpu().clone() for p, state in states.items() for n, t in state.items()}
        digest = hashlib.sha256()
        for _, tensor in sorted(tensors.items()):
            digest.update(tensor.contiguous().numpy().tobytes())
        return cls(msgspec.structs.replace(manifest, sha256=digest.hexdigest()), _checked(manifest, tensors))

    def head(self) -> Code2LoRAHead:
        """The head with these weights, which are not copied."""
        return cast(Code2LoRAHead, self._fill(Code2LoRAHead, self.manifest.head, "head."))

    def gru(self) -> CommitGRU:
        """The GRU with these weights, which are not copied. Raises CheckpointError for a static checkpoint."""
        if self.manifest.gru is None:
            raise CheckpointError("A static checkpoint has no GRU; set c2l.adapter.hypernetwork to static.")
        return cast(CommitGRU, self._fill(CommitGRU, self.manifest.gru, "gru."))

    def hypernetwork(
        self, base: BaseModel, encoder: EmbeddingEncoder, static_class: type[Static] = Static
    ) -> Static | Evo:
        """The hypernetwork for a base model, with the encoder that it was trained with.

        A checkpoint without GRU becomes a `static_class`. Raises CheckpointError if the base, the encoder or the class
        is not the one the checkpoint was made for.
        """
        layers = matching_layers(self.manifest, base.lm, base.id, base.digest)
        wanted = self.manifest.gru.repo_state_dim if self.manifest.gru else self.manifest.head.input_dim
        if wanted != 2 * encoder.hidden:
            raise CheckpointError(
                f"The {self.manifest.kind} checkpoint needs embeddings of width {wanted}, the text encoder has width "
                f"{2 * encoder.hidden}; use the encoder that it was trained with."
            )
        binding = Binding(base=base.digest, layers=layers, alpha=self.manifest.alpha, weights=self.manifest.sha256)
        head = self.head().to(base.device)
        if self.manifest.gru is None:
            if self.manifest.kind != static_class.kind:
                raise CheckpointError(
                    f"This is a {self.manifest.kind} checkpoint; it cannot be used as {static_class.kind}."
                )
            return static_class(head, encoder, binding)
        return Evo(head, self.gru().to(base.device), encoder, binding)

    def _fill(self, module_class: type[nn.Module], config: Struct, prefix: str) -> nn.Module:
        with torch.device("meta"):
            module = module_class(config)
        weights = {name.removeprefix(prefix): t for name, t in self.tensors.items() if name.startswith(prefix)}
        module.load_state_dict(weights, strict=True, assign=True)
        return module.eval()


def matching_layers(manifest: Manifest, lm: nn.Module, name: str, digest: str = "") -> int:
    """The number of layers of a base model.

    Raises CheckpointError unless its projections, and its digest if the manifest has one, are those of the checkpoint.
    """
    if manifest.base_digest and manifest.base_digest != digest:
        raise CheckpointError(
            f"The {manifest.kind} checkpoint was trained for {manifest.base} with other weights than those of {name}."
        )
    linears = {path: m for path, m in lm.named_modules() if isinstance(m, nn.Linear)}
    layers = {int(m[1]) for path in linears if (m := re.match(r"model\.layers\.(\d+)\.", path))}
    for t, dims in sorted(manifest.head.type_dims.items()):
        found = {(m.in_features, m.out_features) for path, m in linears.items() if path.rsplit(".", 1)[-1] == t}
        if found != {dims}:
            there = " and ".join(f"{i}→{o}" for i, o in sorted(found)) or "missing"
            raise CheckpointError(
                f"The {manifest.kind} checkpoint was made for {manifest.base}, where {t} is {dims[0]}→{dims[1]}; "
                f"in {name} it is {there}. Choose that base, or another hypernetwork."
            )
    if manifest.head.layers not in (0, len(layers)):
        raise CheckpointError(
            f"The {manifest.kind} checkpoint has coefficients for {manifest.head.layers} layers, "
            f"{name} has {len(layers)}."
        )
    return len(layers)


def read_published(path: Path, base: str = PUBLISHED_BASE) -> Checkpoint:
    """Load a published `.pt` file without running code from it.

    `base` is the name of the model that the file was made for; the file does not contain it. Raises CheckpointError if
    the file is missing, damaged, hostile or incomplete.
    """
    if not path.is_file():
        raise CheckpointError(f"There is no checkpoint at {path}.")
    sha256 = file_sha256(path)
    content = safe_unpickle(path)
    try:
        manifest, tensors = _interpret(content)
    except CheckpointError as error:
        raise CheckpointError(f"{path} cannot be used: {error}") from error
    return _validated(path, msgspec.structs.replace(manifest, base=base, sha256=sha256), tensors)


def convert(path: Path, out: Path, base: str = PUBLISHED_BASE) -> Checkpoint:
    """Load the published file at `path` and save it to the folder `out` in the converted form."""
    checkpoint = read_published(path, base)
    save(checkpoint, out)
    return checkpoint


def save(checkpoint: Checkpoint, out: Path) -> None:
    """Write the converted form to the folder `out`. Raises StorageError on failure; no incomplete file remains."""
    weights, manifest, partial = out / WEIGHTS, out / MANIFEST, out / "partial"
    try:
        out.mkdir(parents=True, exist_ok=True)
        manifest.unlink(missing_ok=True)
        save_file(checkpoint.tensors, partial, metadata={"sha256": checkpoint.manifest.sha256})
        partial.replace(weights)
        partial.write_bytes(msgspec.json.format(msgspec.json.encode(checkpoint.manifest)))
        partial.replace(manifest)
    except (OSError, SafetensorError) as error:
        with contextlib.suppress(OSError):
            partial.unlink()
        raise StorageError(f"The converted checkpoint cannot be written to {out}: {error}.") from error


def load(folder: Path) -> Checkpoint:
    """Load a converted checkpoint. Tensors are copied, so the files may change later.

    Raises CheckpointError if a file is missing or damaged, or if the weights do not belong to the manifest.
    """
    try:
        manifest = msgspec.json.decode(regular_files.read(folder, MANIFEST, _MAX_MANIFEST_BYTES), type=Manifest)
        os.close(regular_files.open_below(folder, WEIGHTS))  # a FIFO would block, a link could change
        with safe_open(folder / WEIGHTS, framework="pt") as file:
            same = (file.metadata() or {}).get("sha256") == manifest.sha256
            tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118 - no mapping
    except _UNREADABLE as error:
        raise CheckpointError(f"The converted checkpoint in {folder} cannot be read ({error}); delete it.") from error
    if not same:
        raise CheckpointError(f"The weights in {folder} do not belong to its {MANIFEST}; delete the folder.")
    return _validated(folder, manifest, tensors)


def load_published(kind: PublishedKind, store: Path, *, offline: bool = False, **hub: Any) -> Checkpoint:  # noqa: ANN401 - passed on
    """The published checkpoint of a kind: the converted copy in `store`, else downloaded from the Hub and converted.

    A copy that is damaged is set aside as `*.bad`. `hub` is passed to `huggingface_hub.hf_hub_download`, which resumes
    interrupted downloads. Raises AdapterError if the file is not available.
    """
    folder = store / f"code2lora-{kind}"
    if os.path.lexists(folder):
        try:
            return load(folder)
        except CheckpointError:
            _set_aside(folder)
    return convert(download(kind, offline=offline, **hub), folder)


def _set_aside(folder: Path) -> None:
    aside = folder.with_name(f"{folder.name}.bad")
    try:
        if aside.is_dir() and not aside.is_symlink():
            shutil.rmtree(aside)
        aside.unlink(missing_ok=True)
        folder.rename(aside)
    except OSError as error:
        raise StorageError(f"The damaged checkpoint {folder} cannot be set aside: {error.strerror}.") from error


def _interpret(content: object) -> tuple[Manifest, dict[str, object]]:
    if not isinstance(content, dict):
        raise CheckpointError("it does not contain a dictionary.")
    head_state = content.get("head_state", content.get("state_dict"))
    if head_state is None:
        raise CheckpointError("it has neither state_dict nor head_state, so it is not a Code2LoRA checkpoint.")
    args = content.get("args") or {}
    args = vars(args) if isinstance(args, argparse.Namespace) else args
    step_input = content.get("per_step_input") or _get(args, "per_step_input") or "diff"
    if step_input != "diff":
        raise CheckpointError(f"its GRU reads {step_input} at each step; only diff is supported.")
    evo = "gru_state" in content
    try:
        gru = msgspec.convert(_known(content.get("gru_config"), GRUConfig), GRUConfig) if evo else None
        head = msgspec.convert(_head_values(content, gru), HeadConfig)
        alpha = msgspec.convert(_get(args, "alpha", 32.0), float, strict=True)
    except msgspec.ValidationError as error:
        raise CheckpointError(f"its configuration is wrong: {error}.") from error
    tensors = _prefixed(head_state, "head.") | (_prefixed(content["gru_state"], "gru.") if evo else {})
    return Manifest(kind="evo" if evo else "static", head=head, gru=gru, alpha=alpha), tensors


def _get(values: object, key: str, default: object = None) -> object:
    return values.get(key, default) if isinstance(values, Mapping) else default


def _known(values: object, kind: type[Struct]) -> dict[str, object]:
    values = values if isinstance(values, Mapping) else {}
    return {name: values[name] for name in kind.__struct_fields__ if name in values}


def _head_values(content: Mapping[str, object], gru: GRUConfig | None) -> dict[str, object]:
    config = content.get("head_config") or content.get("config") or {}
    values = _known(config, HeadConfig)
    values.setdefault("type_dims", content.get("type_dims"))
    if gru:
        values.setdefault("input_dim", gru.hidden_dim)
    return values


def _prefixed(state: object, prefix: str) -> dict[str, object]:
    if not isinstance(state, Mapping):
        raise CheckpointError(f"its {prefix[:-1]} weights are not a dictionary.")
    return {f"{prefix}{name}": tensor for name, tensor in state.items()}


def _validated(path: Path, manifest: Manifest, tensors: Mapping[str, object]) -> Checkpoint:
    try:
        return Checkpoint(manifest, _checked(manifest, tensors))
    except CheckpointError as error:
        raise CheckpointError(f"{path} cannot be used: {error}") from error


def _checked(manifest: Manifest, tensors: Mapping[str, object]) -> dict[str, Tensor]:
    """The tensors as fp32, without shared memory. Raises CheckpointError unless they are those of the configuration."""
    unknown = sorted(manifest.head.type_dims.keys() - PARENT_MODULE.keys())
    if unknown:
        raise CheckpointError(f"it generates weights for {', '.join(unknown)}, which no supported model has.")
    if manifest.gru and manifest.gru.hidden_dim != manifest.head.input_dim:
        raise CheckpointError(
            f"its GRU gives {manifest.gru.hidden_dim} numbers, its head reads {manifest.head.input_dim}."
        )
    if not (math.isfinite(manifest.alpha) and manifest.alpha > 0):
        raise CheckpointError(f"its alpha is {manifest.alpha}.")
    expected = _shapes(manifest)
    _require_names(expected, tensors)
    checked: dict[str, Tensor] = {}
    storages: set[int] = set()
    for name, shape in expected.items():
        tensor = _as_fp32(name, tensors[name], shape)
        if (place := tensor.untyped_storage().data_ptr()) in storages:
            tensor = tensor.clone()
        storages.add(place)
        checked[name] = tensor
    return checked


def _require_names(expected: Mapping[str, object], tensors: Mapping[str, object]) -> None:
    missing, extra = sorted(expected.keys() - tensors.keys()), sorted(tensors.keys() - expected.keys())
    if missing or extra:
        names = missing or extra
        more = f" and {len(names) - 1} more" if len(names) > 1 else ""
        raise CheckpointError(f"it {'lacks' if missing else 'should not have'} {names[0]}{more}.")


def _shapes(manifest: Manifest) -> dict[str, tuple[int, ...]]:
    with torch.device("meta"):
        parts: dict[str, nn.Module] = {"head.": Code2LoRAHead(manifest.head)}
        if manifest.gru:
            parts["gru."] = CommitGRU(manifest.gru)
    return {prefix + n: tuple(t.shape) for prefix, part in parts.items() for n, t in part.state_dict().items()}


def _as_fp32(name: str, tensor: object, shape: tuple[int, ...]) -> Tensor:
    if not isinstance(tensor, Tensor) or type(tensor) not in (Tensor, nn.Parameter):
        raise CheckpointError(f"{name} is not a tensor.")
    if tensor.layout is not torch.strided or tensor.device.type != "cpu":
        raise CheckpointError(f"{name} is not a dense CPU tensor.")
    if tuple(tensor.shape) != shape:
        raise CheckpointError(f"{name} has shape {tuple(tensor.shape)}, its configuration says {shape}.")
    stored = tensor.untyped_storage().nbytes() // tensor.element_size()
    if not tensor.is_floating_point() or stored < tensor.numel():
        raise CheckpointError(f"{name} is not a tensor of real numbers.")
    if not bool(torch.isfinite(tensor).all()):
        raise CheckpointError(f"{name} contains numbers that are not finite.")
    real = tensor.detach().to(torch.float32)
    return real.contiguous() if stored == tensor.numel() else real.clone()  # GRU weights saved on a GPU share a storage
