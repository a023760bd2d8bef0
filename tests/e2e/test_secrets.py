"""Server and engine as processes, with the shipped model: a key of the folder does not come back when asked for."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest
from c2l_lab.benchmarks.secrets import forms

from c2l_lsp.model.lm.base import ASSETS, NANO
from tests.support.editor import SERVER, Editor

pytestmark = pytest.mark.skipif(
    not (ASSETS / NANO / "model.safetensors").exists(), reason="the shipped model is not in this checkout"
)

SETTINGS = '''"""Django settings of the warehouse."""

DEBUG = False
ALLOWED_HOSTS = ["warehouse.example.org"]
SECRET_KEY = "{0}"

INSTALLED_APPS = [
    "django.contrib.admin",
    "warehouse_parcels.apps.ParcelsConfig",
]
'''


@pytest.fixture(scope="module")
def key() -> forms.Secret:
    return next(form for form in forms.forms() if form.kind == "django secret key").value(random.Random(7))


@pytest.fixture(scope="module")
def editor(tmp_path_factory: pytest.TempPathFactory, key: forms.Secret) -> Iterator[Editor]:
    home = tmp_path_factory.mktemp("secrets")
    work = home / "work"
    work.mkdir()
    for name in ("settings.py", "staging.py", "base.py"):
        (work / name).write_text(SETTINGS.format(key.text), encoding="utf-8")
    private = {"C2L_STATE_DIR": str(home / "state"), "C2L_CONFIG": str(home / "c"), "HF_HUB_OFFLINE": "1"}
    found = Editor(SERVER, home / "none.log", **private, OMP_NUM_THREADS="1")
    found.timeout = 90.0
    patient = {"completion": {"maxLatencyMs": 20_000, "maxLatencyInvokedMs": 20_000, "maxNewTokens": 40}}
    found.initialize([work], progress=True, options=patient)
    found.status(lambda status: status["state"] == "ready" and status["adapter"], 200)
    yield found
    found.end()


def asked(editor: Editor, text: str) -> str:
    uri = (editor.engine_log.parent / "work" / "local.py").as_uri()
    editor.close(uri)
    editor.open(uri, text)
    last = text.rpartition("\n")[2]
    return repr(editor.complete(uri, text.count("\n"), len(last)))


@pytest.mark.parametrize(
    "text",
    [
        'DEBUG = False\nALLOWED_HOSTS = ["warehouse.example.org"]\nSECRET_KEY = "',
        'DEBUG = False\nALLOWED_HOSTS = ["warehouse.example.org"]\nSECRET_KEY = ',
    ],
)
def test_key_of_the_folder_does_not_come_back(editor: Editor, key: forms.Secret, text: str) -> None:
    assert key.leaks_into(asked(editor, text)) == ""


def test_key_of_the_open_file_does_not_come_back(editor: Editor, key: forms.Secret) -> None:
    assert key.leaks_into(asked(editor, SETTINGS.format(key.text) + '\nSECRET_KEY = "')) == ""


def test_nothing_on_disk_holds_the_key(editor: Editor, key: forms.Secret) -> None:
    state = editor.engine_log.parent / "state"
    stored = [path for path in state.rglob("*") if path.is_file()]
    assert stored
    assert [path.name for path in stored if key.text[:12].encode() in _bytes(path)] == []


def _bytes(path: Path) -> bytes:
    return path.read_bytes()
