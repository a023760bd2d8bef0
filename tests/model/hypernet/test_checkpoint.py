"""Published files, valid and damaged, and their converted form."""

from __future__ import annotations

import argparse
import json
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import Qwen2Config, Qwen2ForCausalLM

from c2l_lsp.errors import AdapterError, CheckpointError, StorageError
from c2l_lsp.model.hypernet import checkpoint, published
from c2l_lsp.model.hypernet.checkpoint import (
    MANIFEST,
    WEIGHTS,
    Checkpoint,
    Manifest,
    convert,
    load,
    load_published,
    matching_layers,
    read_published,
    save,
)
from c2l_lsp.model.hypernet.gru import CommitGRU, GRUConfig
from c2l_lsp.model.hypernet.lora_head import Code2LoRAHead, HeadConfig
from c2l_lsp.model.hypernet.published import PUBLISHED, PUBLISHED_BASE, download

torch.set_num_threads(1)
DIMS = {"q_proj": (6, 10), "v_proj": (6, 5)}
HEAD = HeadConfig(type_dims=DIMS, input_dim=8, hidden_dim=12, rank=3)
GRU = GRUConfig(diff_input_dim=8, repo_state_dim=8, hidden_dim=8)


def head(config: HeadConfig = HEAD) -> Code2LoRAHead:
    torch.manual_seed(0)
    return Code2LoRAHead(config).eval()


def gru() -> CommitGRU:
    torch.manual_seed(1)
    return CommitGRU(GRU).eval()


def config(**changes: Any) -> dict[str, Any]:
    return {
        "input_dim": 8, "hidden_dim": 12, "rank": 3, "types": sorted(DIMS),
        "type_dims": {t: list(dims) for t, dims in DIMS.items()}, "num_tasks": 0, "task_dim": 0, **changes,
    }  # fmt: skip


def direct(**changes: Any) -> dict[str, Any]:
    """The content of `code2lora_direct.pt`."""
    args = {"alpha": 24.0, "lr": 1e-4, "model_name": PUBLISHED_BASE, "resume": None, "tasks": ["assert_rhs"]}
    return {"state_dict": head().state_dict(), "config": config(), "type_dims": DIMS, "args": args, **changes}


def recurrent(**changes: Any) -> dict[str, Any]:
    """The content of `code2lora_gru.pt`."""
    return {
        "gru_state": gru().state_dict(), "head_state": head().state_dict(), "head_config": config(),
        "gru_config": {"diff_input_dim": 8, "repo_state_dim": 8, "hidden_dim": 8},
        "type_dims": DIMS, "args": {"alpha": 32.0}, "per_step_input": "diff", **changes,
    }  # fmt: skip


def without(content: dict[str, Any], *keys: str) -> dict[str, Any]:
    return {key: value for key, value in content.items() if key not in keys}


@pytest.fixture
def pt(tmp_path: Path):
    def write(content: Any) -> Path:
        torch.save(content, tmp_path / "file.pt")
        return tmp_path / "file.pt"

    return write


# ---- sound files ------------------------------------------------------------------------------------------------


def test_direct_file_has_a_static_head(pt) -> None:
    read = read_published(pt(direct()))
    assert read.manifest.kind == "static"
    assert read.manifest.alpha == 24.0
    assert read.manifest.base == PUBLISHED_BASE
    ctx = torch.randn(2, 8)
    torch.testing.assert_close(read.head()(ctx), head()(ctx), rtol=0, atol=0)
    with pytest.raises(CheckpointError, match="no GRU"):
        read.gru()


def test_gru_file_has_head_and_gru_of_evo(pt) -> None:
    read = read_published(pt(recurrent()))
    assert (read.manifest.kind, read.manifest.gru, read.manifest.alpha) == ("evo", GRU, 32.0)
    h, e = torch.randn(2, 8), torch.randn(2, 8)
    made, want = read.gru(), gru()
    made_h, want_h = made.initial_state(h), want.initial_state(h)
    assert torch.equal(made.context(made.step(e, made_h)), want.context(want.step(e, want_h)))
    assert torch.equal(read.head()(h)["q_proj"][0], head()(h)["q_proj"][0])


def test_keys_that_older_files_lack_have_defaults(pt) -> None:
    old = recurrent(head_config=without(config(), "num_tasks", "task_dim", "types", "type_dims", "input_dim"), args={})
    read = read_published(pt(without(old, "per_step_input")))
    assert read.manifest.head == HEAD
    assert read.manifest.alpha == 32.0
    assert read_published(pt(without(direct(), "args"))).manifest.alpha == 32.0
    assert read_published(pt(without(direct(), "type_dims"))).manifest.head.type_dims == DIMS


def test_a_multi_task_head_keeps_its_task_embedding(pt) -> None:
    tasked = HeadConfig(type_dims=DIMS, input_dim=8, hidden_dim=12, rank=3, num_tasks=2, task_dim=5)
    content = direct(state_dict=head(tasked).state_dict(), config=config(num_tasks=2, task_dim=5))
    assert read_published(pt(content)).head().task_embedding.weight.shape == (2, 5)


def test_args_may_hold_paths_numpy_numbers_and_a_namespace(pt) -> None:
    args = argparse.Namespace(
        alpha=np.float64(16.0), seed=np.int64(3), flag=np.bool_(True), out=Path("/x/y"), f=np.float32(1)
    )
    assert read_published(pt(direct(args=args))).manifest.alpha == 16.0
    assert read_published(pt(direct(args=vars(args)))).manifest.alpha == 16.0


def test_half_precision_and_shared_storage_become_separate_fp32(pt, tmp_path: Path) -> None:
    """A GRU saved on a GPU consists of views of one buffer, and safetensors refuses shared memory."""
    state = gru().state_dict()
    flat = torch.cat([tensor.flatten() for tensor in state.values()])
    views, start = {}, 0
    for name, tensor in state.items():
        views[name] = flat[start : start + tensor.numel()].view(tensor.shape)
        start += tensor.numel()
    weights = {name: tensor.bfloat16() for name, tensor in head().state_dict().items()}
    read = convert(pt(recurrent(gru_state=views, head_state=weights)), tmp_path / "out")
    assert all(tensor.dtype is torch.float32 for tensor in read.tensors.values())
    assert len({tensor.untyped_storage().data_ptr() for tensor in read.tensors.values()}) == len(read.tensors)
    torch.testing.assert_close(read.gru().state_dict(), state, rtol=0, atol=0)


def test_tensor_shared_by_two_names_is_copied(pt, tmp_path: Path) -> None:
    state = gru().state_dict()
    state["gru.bias_hh_l0"] = state["gru.bias_ih_l0"]
    read = convert(pt(recurrent(gru_state=state)), tmp_path / "out")
    one, other = (read.tensors[f"gru.gru.bias_{side}_l0"] for side in ("ih", "hh"))
    assert torch.equal(one, other)
    assert one.data_ptr() != other.data_ptr()


def test_conversion_keeps_every_bit_and_writes_a_manifest(pt, tmp_path: Path) -> None:
    for content in (direct(), recurrent()):
        path = pt(content)
        read = convert(path, tmp_path / "out")
        loaded = load(tmp_path / "out")
        assert loaded.manifest == read.manifest
        assert len(loaded.manifest.sha256) == 64
        torch.testing.assert_close(loaded.tensors, read.tensors, rtol=0, atol=0)
    manifest = json.loads((tmp_path / "out" / MANIFEST).read_text())
    assert manifest["kind"] == "evo"
    assert manifest["base"] == PUBLISHED_BASE
    assert manifest["head"]["type_dims"]["q_proj"] == [6, 10]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [MANIFEST, WEIGHTS]


def test_loaded_weights_do_not_change_with_the_file(pt, tmp_path: Path) -> None:
    """A mapped file that is truncated or rewritten would end the process or change the weights."""
    convert(pt(direct()), tmp_path / "out")
    loaded = load(tmp_path / "out")
    before = {name: tensor.clone() for name, tensor in loaded.tensors.items()}
    with (tmp_path / "out" / WEIGHTS).open("r+b") as file:
        file.write(b"\0" * (tmp_path / "out" / WEIGHTS).stat().st_size)
        file.truncate(10)
    torch.testing.assert_close(loaded.tensors, before, rtol=0, atol=0)


def test_trained_modules_save_and_load(tmp_path: Path) -> None:
    manifest = Manifest(kind="evo", head=HEAD, gru=GRU, alpha=6.0, base="c2l-nano", base_digest="d")
    made = Checkpoint.from_modules(manifest, head(), gru())
    save(made, tmp_path)
    assert load(tmp_path).manifest == made.manifest
    assert (
        made.manifest.sha256
        != Checkpoint.from_modules(manifest, head().requires_grad_(False).double(), gru().half()).manifest.sha256
    )


# ---- broken and hostile files -----------------------------------------------------------------------------------


class Payload:
    """Creates a marker file when it is unpickled without protection."""

    def __init__(self, call: Any, *arguments: Any) -> None:
        self.call, self.arguments = call, arguments

    def __reduce__(self) -> Any:
        return self.call, self.arguments


@pytest.mark.parametrize("where", ["args", "state_dict", "alone"])
@pytest.mark.parametrize("call", ["system", "eval", "mkdir", "touch"])
def test_hostile_pickle_runs_nothing(pt, tmp_path: Path, call: str, where: str) -> None:
    marker = tmp_path / "marker"
    payload = {
        "system": Payload(os.system, f"touch {marker}"),
        "eval": Payload(eval, f"__import__('pathlib').Path({str(marker)!r}).touch()"),
        "mkdir": Payload(os.mkdir, str(marker)),
        "touch": Payload(Path.touch, marker),
    }[call]
    path = pt(payload if where == "alone" else direct(**{where: {"x": payload}}))
    with pytest.raises(CheckpointError, match=r"file\.pt tries to run \S+.* refused and nothing ran") as caught:
        read_published(path)
    assert not marker.exists()
    assert "weights_only" not in str(caught.value)
    pickle.loads(pickle.dumps(payload))
    assert marker.exists(), "the payload is harmless, so the test shows nothing"


def test_numpy_stand_ins_cannot_construct_objects(pt) -> None:
    scalar = np.float64(1).__reduce__()[0]
    payload = Payload(scalar, np.dtype("O"), pickle.dumps(Payload(os.system, "false")))
    with pytest.raises(CheckpointError, match=r"damaged|refused"):
        read_published(pt(direct(args={"alpha": payload})))


@pytest.mark.parametrize("keep", [0, 10, 0.3, 0.7, -1])
def test_truncated_file_is_refused(pt, keep: float) -> None:
    path = pt(direct())
    content = path.read_bytes()
    path.write_bytes(content[: int(keep * len(content)) if isinstance(keep, float) else keep])
    with pytest.raises(CheckpointError, match=r"file\.pt is truncated, damaged"):
        read_published(path)


def test_flipped_bit_is_detected(pt) -> None:
    """torch.load does not check the checksums of the archive."""
    path = pt(direct())
    content = bytearray(path.read_bytes())
    weights = head().state_dict()["heads_A.q_proj.weight"].numpy().tobytes()
    content[content.index(weights) + 1] ^= 4
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"file\.pt is damaged in \S+/data/\d+; download it again"):
        read_published(path)


def test_other_files_are_refused(tmp_path: Path, pt) -> None:
    path = tmp_path / "file.pt"
    path.write_bytes(b"not a checkpoint at all" * 100)
    with pytest.raises(CheckpointError, match="truncated, damaged or not a PyTorch file"):
        read_published(path)
    with pytest.raises(CheckpointError, match="no checkpoint at"):
        read_published(tmp_path / "nowhere.pt")
    for content, sentence in (
        ([1], "not contain a dictionary"),
        ({"model_state_dict": {}}, "not a Code2LoRA checkpoint"),
    ):
        with pytest.raises(CheckpointError, match=sentence):
            read_published(pt(content))


def changed(name: str, tensor: Any, what: str = "head") -> dict[str, Any]:
    state = {"head": head().state_dict(), "gru": gru().state_dict()}
    state[what][name] = tensor
    return recurrent(head_state=state["head"], gru_state=state["gru"])


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (changed("trunk.0.bias", torch.full((12,), float("nan"))), r"head\.trunk\.0\.bias contains .* not finite"),
        (changed("gru.bias_hh_l0", torch.full((24,), float("inf")), "gru"), r"gru\.gru\.bias_hh_l0 .* not finite"),
        (changed("trunk.0.bias", torch.zeros(11)), r"head\.trunk\.0\.bias has shape \(11,\), .* \(12,\)"),
        (changed("log_scale_A.q_proj", torch.zeros(1)), r"log_scale_A\.q_proj has shape \(1,\)"),
        (changed("trunk.0.bias", torch.zeros(12, dtype=torch.long)), "not a tensor of real numbers"),
        (changed("trunk.0.bias", [0.0] * 12), "bias is not a tensor"),
        (changed("trunk.0.bias", torch.zeros(1).expand(12)), "not a tensor of real numbers"),
        (changed("trunk.0.bias", torch.zeros(12).to_sparse()), "not a dense CPU tensor"),
        (changed("trunk.0.bias", torch.zeros(12, device="meta")), "not a dense CPU tensor"),
        (changed("trunk.9.bias", torch.zeros(1)), r"should not have head\.trunk\.9\.bias\."),
        (recurrent(head_state={}), r"lacks head\.heads_A\.q_proj\.bias and \d+ more"),
        (recurrent(gru_state=without(gru().state_dict(), "output_norm.bias")), r"lacks gru\.output_norm\.bias\."),
        (recurrent(head_state=[1]), "head weights are not a dictionary"),
        (direct(config=config(rank=4)), "its configuration says"),
        (direct(config=config(type_dims={"q_proj": [6, 10], "v_proj": [6, 4]})), r"heads_B\.v_proj\.weight has shape"),
        (direct(config=config(rank="16")), r"configuration is wrong: Expected `int`, got `str` - at `\$.rank`"),
        (direct(config=config(hidden_dim=-1)), "configuration is wrong"),
        (direct(config=config(hidden_dim=1 << 40)), "configuration is wrong"),
        (direct(config=config(type_dims={"c_attn": [6, 10]})), "c_attn, which no supported model has"),
        (without(direct(config={}), "type_dims"), "configuration is wrong"),
        (direct(args={"alpha": float("nan")}), "its alpha is nan"),
        (direct(args={"alpha": "32"}), "configuration is wrong"),
        (recurrent(per_step_input="concat"), "reads concat at each step"),
        (recurrent(head_config=config(input_dim=9)), "GRU gives 8 numbers, its head reads 9"),
    ],
)
def test_error_names_the_defect(pt, content: dict[str, Any], sentence: str) -> None:
    with pytest.raises(CheckpointError, match=rf"file\.pt (cannot be used|is truncated).*{sentence}"):
        read_published(pt(content))


def test_huge_shape_in_the_configuration_allocates_no_memory(pt) -> None:
    with pytest.raises(CheckpointError, match="has shape"):
        read_published(pt(direct(config=config(hidden_dim=1 << 20, rank=4096))))


def test_damaged_converted_form_is_refused(pt, tmp_path: Path) -> None:
    out = tmp_path / "out"

    def fresh() -> None:
        convert(pt(direct()), out)

    fresh()
    (out / WEIGHTS).write_bytes((out / WEIGHTS).read_bytes()[:-4])
    with pytest.raises(CheckpointError, match="out cannot be read"):
        load(out)
    fresh()
    (out / MANIFEST).write_text("{")
    with pytest.raises(CheckpointError, match="out cannot be read"):
        load(out)
    fresh()
    save_file(load_file(out / WEIGHTS), out / WEIGHTS, metadata={"sha256": "another"})
    with pytest.raises(CheckpointError, match="do not belong"):
        load(out)
    fresh()
    tensors = load_file(out / WEIGHTS)
    tensors["head.trunk.0.bias"] = torch.full((12,), float("nan"))
    save_file(tensors, out / WEIGHTS, metadata={"sha256": json.loads((out / MANIFEST).read_text())["sha256"]})
    with pytest.raises(CheckpointError, match="not finite"):
        load(out)
    with pytest.raises(CheckpointError, match="cannot be read"):
        load(tmp_path / "nowhere")


def test_failed_conversion_leaves_no_incomplete_file(pt, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_tensors: Any, path: Path, **_: Any) -> None:
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    convert(pt(direct()), tmp_path / "out")
    monkeypatch.setattr(checkpoint, "save_file", full)
    with pytest.raises(StorageError, match="No space left"):
        convert(pt(direct()), tmp_path / "out")
    assert not (tmp_path / "out" / MANIFEST).exists()
    assert not (tmp_path / "out" / "partial").exists()


# ---- the base ---------------------------------------------------------------------------------------------------


def lm(hidden: int = 6) -> Qwen2ForCausalLM:
    return Qwen2ForCausalLM(
        Qwen2Config(
            vocab_size=32, hidden_size=hidden, intermediate_size=8, num_hidden_layers=3, num_attention_heads=1,
            num_key_value_heads=1, head_dim=10,
        )
    )  # fmt: skip


def test_matching_base_returns_its_number_of_layers() -> None:
    assert matching_layers(Manifest(kind="static", head=HeadConfig(type_dims={"q_proj": (6, 10)})), lm(), "tiny") == 3


def test_checkpoint_of_another_base_is_refused_with_both_shapes() -> None:
    manifest = Manifest(kind="static", head=HeadConfig(type_dims={"q_proj": (6, 10)}))
    with pytest.raises(
        CheckpointError, match=r"made for Qwen/Qwen2\.5-Coder-1\.5B, where q_proj is 6→10; in tiny it is 8→10"
    ):
        matching_layers(manifest, lm(8), "tiny")
    with pytest.raises(CheckpointError, match="in plain it is missing"):
        matching_layers(manifest, torch.nn.Sequential(torch.nn.Linear(6, 10)), "plain")
    bound = Manifest(kind="static", head=HeadConfig(type_dims={"q_proj": (6, 10)}), base_digest="one")
    assert matching_layers(bound, lm(), "tiny", "one") == 3
    with pytest.raises(CheckpointError, match="other weights"):
        matching_layers(bound, lm(), "tiny", "two")


# ---- the Hub ----------------------------------------------------------------------------------------------------


def test_published_file_is_downloaded_and_converted_once(pt, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def download(repository: str, name: str, **options: Any) -> str:
        asked.append((repository, name, options))
        return str(pt(recurrent()))

    monkeypatch.setattr("huggingface_hub.hf_hub_download", download)
    first = load_published("evo", tmp_path / "store", cache_dir=tmp_path)
    (tmp_path / "file.pt").unlink()
    again = load_published("evo", tmp_path / "store", offline=True)
    assert asked == [(*PUBLISHED["evo"], {"local_files_only": False, "cache_dir": tmp_path})]
    assert first.manifest == again.manifest
    torch.testing.assert_close(again.tensors, first.tensors, rtol=0, atol=0)


def _deep(folder: Path) -> None:
    (folder / "checkpoint.json").write_text('{"kind": ' + "[" * 100_000 + "]" * 100_000 + "}")


def _replaced(name: str, make: Callable[[Path], Any]) -> Callable[[Path], Any]:
    def damage(folder: Path) -> None:
        (folder / name).unlink()
        make(folder / name)

    return damage


FOREIGN: dict[str, Callable[[Path], Any]] = {
    "deep manifest": _deep,
    "huge manifest": lambda folder: (folder / "checkpoint.json").write_bytes(b" " * (2 << 20)),
    "manifest of another type": lambda folder: (folder / "checkpoint.json").write_text("[]"),
    **{f"{kind} as {name}": _replaced(name, make)
       for name in ("checkpoint.json", "weights.safetensors")
       for kind, make in {"a FIFO": os.mkfifo, "a directory": Path.mkdir, "a loop": lambda p: p.symlink_to(p.name),
                          "a device": lambda p: p.symlink_to("/dev/zero")}.items()},
    "weights with a deep header": lambda folder: (folder / "weights.safetensors").write_bytes(
        (200_000).to_bytes(8, "little") + b"[" * 100_000 + b"]" * 100_000
    ),
}  # fmt: skip


@pytest.mark.skipif(os.name == "nt", reason="FIFOs")
@pytest.mark.parametrize("damage", FOREIGN.values(), ids=FOREIGN)
def test_foreign_converted_copy_is_set_aside_and_converted_again(pt, tmp_path: Path, monkeypatch, damage) -> None:
    monkeypatch.setattr("huggingface_hub.hf_hub_download", lambda *_, **__: str(pt(direct())))
    first = load_published("static", tmp_path / "store")
    for _ in range(2):
        damage(tmp_path / "store" / "code2lora-static")
        with pytest.raises(CheckpointError):
            load(tmp_path / "store" / "code2lora-static")
        again = load_published("static", tmp_path / "store")
        assert again.manifest == first.manifest
        assert (tmp_path / "store" / "code2lora-static.bad").is_dir()


def test_published_repositories_and_files() -> None:
    assert PUBLISHED == {
        "static": ("code2lora/code2lora-direct", "code2lora_direct.pt"),
        "evo": ("code2lora/code2lora-gru", "code2lora_gru.pt"),
    }
    assert published.PUBLISHED_BASE == "Qwen/Qwen2.5-Coder-1.5B"


def test_offline_error_without_a_copy_names_the_setting(tmp_path: Path) -> None:
    with pytest.raises(
        AdapterError, match=r"code2lora_gru\.pt of code2lora/code2lora-gru\) is not on this machine .*offline is on"
    ):
        download("evo", offline=True, cache_dir=tmp_path)


def test_hub_failures_raise_adapter_error(monkeypatch: pytest.MonkeyPatch) -> None:
    import httpx2
    from huggingface_hub import errors

    response = httpx2.Response(404, request=httpx2.Request("GET", "https://hub/x"))
    cases = [
        (errors.GatedRepoError("no", response=response), "needs permission"),
        (errors.RepositoryNotFoundError("no", response=response), "is not on the Hub"),
        (errors.RemoteEntryNotFoundError("no", response=response), "is not on the Hub"),
        (errors.LocalEntryNotFoundError("no"), "the Hub does not answer"),
        (OSError(28, "No space left on device"), "cannot be downloaded: .*No space left"),
        (httpx2.ReadTimeout(""), "cannot be downloaded: ReadTimeout"),
    ]
    for error, sentence in cases:
        monkeypatch.setattr("huggingface_hub.hf_hub_download", lambda *_, e=error, **__: (_ for _ in ()).throw(e))
        with pytest.raises(AdapterError, match=sentence):
            download("static")
