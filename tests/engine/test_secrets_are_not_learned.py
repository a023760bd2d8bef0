"""Secrets in a file are neither learned nor indexed nor suggested, and the rest of the file is."""

from __future__ import annotations

import contextlib
import json
import random
import shutil
from collections import OrderedDict
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from c2l_lab.benchmarks.secrets import forms as secret_forms

from c2l_lsp.config import Settings, merge
from c2l_lsp.cooperative import Slices
from c2l_lsp.engine import wire
from c2l_lsp.engine.adaptation.validation import ValidationResult, Validator
from c2l_lsp.engine.completion import secret_guard
from c2l_lsp.engine.session import Session
from c2l_lsp.model.lm.base import ASSETS, NANO, BaseModel
from c2l_lsp.redaction import MARK, Span
from c2l_lsp.repo.filter import content, screen
from tests.support.engine_loop import run_until

pytestmark = pytest.mark.skipif(
    not (ASSETS / NANO / "model.safetensors").exists(), reason="the shipped model is not in this checkout"
)

KINDS = ("django secret key", "postgres url", "slack webhook", "aws secret access key", "human password")
TEMPLATE = '''"""Django settings of the warehouse."""

import os

DEBUG = False
ALLOWED_HOSTS = ["warehouse.example.org"]
SECRET_KEY = "{0}"
DATABASE_URL = "{1}"
NOTIFY_HOOK: str | None = "{2}"
STORAGE = Storage("eu-north-9", "{3}")
DB_PASSWORD = os.environ.get("DB_PASSWORD", "{4}")

INSTALLED_APPS = [
    "django.contrib.admin",
    "warehouse_parcels.apps.ParcelsConfig",
    "warehouse_shelves.apps.ShelvesConfig",
]
PARCEL_SHELF_LIMIT_PER_WAREHOUSE = 4711
'''
LEARNED = ("warehouse_parcels.apps.ParcelsConfig", "PARCEL_SHELF_LIMIT_PER_WAREHOUSE", "eu-north-9", "SECRET_KEY")
PROMPTS = (
    'import os\n\nDEBUG = False\nALLOWED_HOSTS = ["warehouse.example.org"]\nSECRET_KEY = "',
    'DATABASE_URL = "',
    'NOTIFY_HOOK: str | None = "',
    'STORAGE = Storage("eu-north-9", "',
    'DB_PASSWORD = os.environ.get("DB_PASSWORD", "',
    'ALLOWED_HOSTS = ["warehouse.example.org"]\nSECRET_KEY = ',
)


@pytest.fixture(scope="module")
def secrets() -> list[secret_forms.Secret]:
    rng = random.Random(19)
    by_kind = {form.kind: form for form in secret_forms.forms()}
    return [by_kind[kind].value(rng) for kind in KINDS]


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory, secrets: list[secret_forms.Secret]) -> Path:
    root = tmp_path_factory.mktemp("secrets") / "project"
    root.mkdir()
    for name in ("scanner.py", "tool.py"):
        shutil.copy(Path(json.__file__).parent / name, root / name)
    for name in ("settings.py", "settings_staging.py"):
        (root / name).write_text(TEMPLATE.format(*(secret.text for secret in secrets)), encoding="utf-8")
    return root


@contextlib.contextmanager
def opened(project: Path, state: Path) -> Iterator[Session]:
    """An engine that has indexed the project with the shipped model, for drafts as well, and uses its memory."""

    def accept(*_: object) -> Slices[ValidationResult]:
        yield
        return ValidationResult(1.0, 0.0, 0)

    values = {"adapter": {"updateDelayMs": 20, "maxDelayMs": 200}, "model": {"id": NANO}}
    settings, errors = merge(Settings(), values, source="test", machine=True)
    assert not errors
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("C2L_STATE_DIR", str(state))
        patch.setattr(Validator, "validate_in_slices", accept)
        with Session(settings) as session:
            session.open(project)
            run_until(session, lambda: not _outdated(session, project))
            yield session


def _outdated(session: Session, project: Path) -> bool:
    return session.engine._drafts.outdated(str(project), session.engine.workspace(str(project)))


@pytest.fixture(scope="module")
def encoded() -> list[str]:
    """Every text that the model encodes while the project is indexed."""
    return []


@pytest.fixture(scope="module")
def session(project: Path, encoded: list[str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Session]:
    real = BaseModel.encode

    def encode(self: BaseModel, text: str) -> list[int]:
        encoded.append(text)
        return real(self, text)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(BaseModel, "encode", encode)
        with opened(project, tmp_path_factory.mktemp("state")) as found:
            found.finetune(str(project.resolve()), steps=1)
            patch.undo()  # prompts are not learned
            yield found


def suggested(session: Session, project: Path, prompt: str) -> str:
    request = wire.Complete(
        folder=str(project), path="local.py", language="python", prefix=prompt, suffix="\n", max_new_tokens=40,
        max_latency_ms=60_000, candidates=3, invoked=True,
    )  # fmt: skip
    return "\n".join(session.complete(request).texts)


def learned(session: Session, project: Path) -> str:
    """The text of the datastore of the kNN memory."""
    adapting = session.engine.workspace(str(project))
    ids = [token for token in adapting._learner.state.positions.ids.tolist() if token >= 0]
    return str(session.engine.model.decode(ids))


def drafted(session: Session, project: Path) -> str:
    """All drafts of all runs of tokens in the draft index."""
    index = session.engine._drafts.of(str(project))
    return "\n".join(session.engine.model.decode(index.continuation([*run], 64)) for run in index._positions)


def leaks(secrets: list[secret_forms.Secret], text: str) -> list[str]:
    return [piece for secret in secrets if (piece := secret.leaks_into(text))]


def test_secrets_are_not_learned_and_the_rest_is(session: Session, project: Path, secrets) -> None:
    text = learned(session, project)
    assert leaks(secrets, text) == []
    assert [name for name in LEARNED if name not in text] == []


def test_nothing_that_is_learned_or_trained_on_holds_a_secret_or_a_mark(
    session: Session, encoded: list[str], secrets
) -> None:
    """Chunks, the draft index, held-out files and the windows of finetuning: all go through the tokenizer."""
    del session
    text = "\n".join(encoded)
    assert leaks(secrets, text) == []
    assert MARK not in text
    assert text.count("PARCEL_SHELF_LIMIT_PER_WAREHOUSE = 4711") >= 3


def test_secrets_are_not_drafted_and_the_rest_is(session: Session, project: Path, secrets) -> None:
    text = drafted(session, project)
    assert leaks(secrets, text) == []
    assert "ParcelsConfig" in text
    assert "LIMIT_PER_WAREHOUSE = 4711" in text


def test_secrets_are_not_suggested_and_the_rest_is(session: Session, project: Path, secrets) -> None:
    assert leaks(secrets, "\n".join(suggested(session, project, prompt) for prompt in PROMPTS)) == []
    prompt = 'INSTALLED_APPS = [\n    "django.contrib.admin",\n    "warehouse_par'
    assert "cels.apps.ParcelsConfig" in suggested(session, project, prompt)


def test_secret_of_the_open_file_is_not_suggested_again(session: Session, project: Path, secrets) -> None:
    """The prompt holds it: the model could copy it from there."""
    shown = TEMPLATE.format(*(secret.text for secret in secrets))
    for prompt in PROMPTS:
        assert leaks(secrets, suggested(session, project, f"{shown}\n\n{prompt}")) == []


def _finds_nothing(text: str) -> Slices[list[Span]]:
    del text
    yield
    return []


FAULTS: dict[str, Callable[[pytest.MonkeyPatch], None]] = {
    "screen": lambda patch: patch.setattr(screen, "secret_spans_in_slices", _finds_nothing),
    "marks": lambda patch: patch.setattr(content, "redact", lambda text, spans: text),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_without_the_screen_they_are_learned(
    fault: str, project: Path, secrets, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The tests above can fail: the same search finds the secrets when one part is missing."""
    monkeypatch.setattr(content, "_known", OrderedDict())
    FAULTS[fault](monkeypatch)
    with opened(project, tmp_path) as session:
        assert len(leaks(secrets, learned(session, project))) >= 4
        assert len(leaks(secrets, drafted(session, project))) >= 4
        monkeypatch.setattr(secret_guard.screen, "secret_spans", lambda text: [])
        assert leaks(secrets, "\n".join(suggested(session, project, prompt) for prompt in PROMPTS)) != []
