"""A model's config.json names code; with the package `kernels` installed, none of it is fetched or run."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from c2l_lsp.config import Model
from c2l_lsp.errors import ModelError
from c2l_lsp.model.lm import base

ROOT = Path(__file__).resolve().parents[3]
KERNEL = "kernels-community/flash-attn2"
CONFIGS = {
    "attention": {"attn_implementation": KERNEL},
    "internal attention": {"_attn_implementation": KERNEL, "_attn_implementation_internal": KERNEL},
    "foreign kernel": {"attn_implementation": "evil/kernel@main:attention"},
    "flash attention": {"attn_implementation": "flash_attention_2"},
    "attention of a part": {"attn_implementation": {"": KERNEL, "text_config": KERNEL}},
    "experts": {"experts_implementation": "sonicmoe"},
    "internal experts": {"_experts_implementation": "deepgemm"},
    "use_kernels": {"use_kernels": True, "allow_all_kernels": True},
    "kernel_config": {"use_kernels": True, "kernel_config": {"kernel_mapping": {"RMSNorm": "evil/kernel:RMSNorm"}}},
    "auto_map": {
        "auto_map": {"AutoConfig": "evil.Evil", "AutoModel": "evil.Evil", "AutoModelForCausalLM": "evil.Evil"}
    },
    "quantization": {"quantization_config": {"quant_method": "mxfp4"}},
}
"""What a config.json adds. transformers loads a name of the form owner/repository through `kernels`."""
FAKE = """
import sys
open({marker!r}, "a").write("imported\\n")
class _Any:
    def __init__(self, *a, **k): pass
    def __call__(self, *a, **k): return self
    def __getattr__(self, name):
        if name.startswith("__"): raise AttributeError(name)
        return _Any()
def get_kernel(name, *a, **k):
    open({marker!r}, "a").write(f"get_kernel {{name}}\\n")
    raise FileNotFoundError(name)
def use_kernel_forward_from_hub(*a, **k): return lambda decorated: decorated
use_kernelized_func = replace_kernel_forward_from_hub = use_kernel_forward_from_hub
def __getattr__(name):
    if name.startswith("__"): raise AttributeError(name)
    return _Any()
"""
PROGRAM = """
import sys
from pathlib import Path
{prepare}
import torch, transformers
from c2l_lsp.config import Model
from c2l_lsp.errors import ModelError
from c2l_lsp.model.hypernet.encoder import load_encoder
from c2l_lsp.model.lm import base, fast_loader

for folder in sys.argv[1:]:
    settings = Model(path=folder, dtype="float32")
    for load in (lambda: fast_loader.load(settings), lambda: load_encoder(folder, offline=True)):
        try:
            model = load()
        except ModelError as error:
            print("refused", Path(folder).name, error)
        else:
            lm = model.lm if hasattr(model, "lm") else model._model
            print("loaded", Path(folder).name, getattr(lm.config, "_attn_implementation", None))
print("available", transformers.utils.import_utils.is_kernels_available())
"""


@pytest.fixture(scope="module")
def folders(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """A copy of the tiny model for each of CONFIGS."""
    made = []
    for name, change in CONFIGS.items():
        folder = tmp_path_factory.mktemp("hostile") / name
        shutil.copytree(tiny_folder, folder)
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps({**config, **change}))
        (folder / "evil.py").write_text("raise SystemExit('ran')\n")
        made.append(folder)
    return made


def _load(folders: list[Path], tmp_path: Path, prepare: str = "") -> tuple[list[str], str]:
    """Load every folder as model and as encoder with a fake `kernels`; its calls, and the output."""
    package, marker = tmp_path / "packages", tmp_path / "calls"
    (package / "kernels").mkdir(parents=True)
    (package / "kernels" / "__init__.py").write_text(FAKE.format(marker=str(marker)))
    (package / "kernels-0.0.0.dist-info").mkdir()
    versions = "from transformers.utils import import_utils as u; print(u.KERNELS_MIN_VERSION)"
    version = subprocess.run(
        [sys.executable, "-c", versions], capture_output=True, text=True, check=True
    ).stdout.strip()
    about = f"Metadata-Version: 2.1\nName: kernels\nVersion: {version}\n"
    (package / "kernels-0.0.0.dist-info" / "METADATA").write_text(about)
    path = os.pathsep.join([str(ROOT), str(package)])
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(prepare=prepare), *map(str, folders)],
        env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, timeout=170, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return marker.read_text().splitlines() if marker.exists() else [], done.stdout


def test_no_kernel_is_imported_or_fetched(folders: list[Path], tmp_path: Path) -> None:
    calls, output = _load(folders, tmp_path)
    assert calls == []
    assert "available False" in output
    loaded = [line for line in output.splitlines() if line.startswith("loaded")]
    assert len(loaded) >= 2 * (len(CONFIGS) - 1), output  # all but the quantised model
    assert {line.rsplit(" ", 1)[1] for line in loaded} == {"sdpa"}


def test_config_is_overruled_even_if_kernels_is_in_use(folders: list[Path], tmp_path: Path) -> None:
    """Another program in this process may have imported transformers with `kernels` before."""
    names = [folder for folder in folders if folder.name != "quantization"]
    calls, output = _load(names, tmp_path, prepare="import kernels, transformers")
    assert [call for call in calls if call != "imported"] == []
    assert "available True" in output, "the fake is taken for the real package"


def test_hub_name_is_not_taken_for_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "owner" / "model").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModelError, match="owner/model"):
        base.locate(Model(id="owner/model"))
