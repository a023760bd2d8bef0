"""The search for secrets: which forms it finds, what it leaves, and how long it takes."""

from __future__ import annotations

import random
import time
from collections.abc import Callable

import pytest
from c2l_lab.benchmarks.secrets import forms as secret_forms
from c2l_lab.train.screen import detector_rules

from c2l_lsp.redaction import MARK, pieces, redact
from c2l_lsp.repo.filter import randomness, screen, secret_rules
from c2l_lsp.repo.filter.randomness import COSTS_FILE
from c2l_lsp.repo.filter.secret_rules import RULES_FILE
from tests.support.linear import assert_linear

MOST_LEARNED = 0.05
"""Share of the cases of `secret_forms` of which six characters may be left."""


def redacted(text: str) -> str:
    return redact(text, screen.secret_spans(text))


def learned(forms: list[secret_forms.Form], seed: int) -> float:
    cases = [secret.leaks_into(redacted(text)) for _, _, secret, text in secret_forms.cases(forms, seed)]
    return sum(map(bool, cases)) / len(cases)


# --- what is found -------------------------------------------------------------------------------------------------


def test_forms_are_many_and_divided() -> None:
    assert len(secret_forms.forms()) >= 120
    assert len(secret_forms.CONTEXTS) >= 40
    assert not {form.kind for form in secret_forms.dev()} & {form.kind for form in secret_forms.held_out()}


@pytest.mark.parametrize("half", [secret_forms.dev, secret_forms.held_out], ids=["dev", "held out"])
def test_few_secrets_are_learned(half: Callable[[], list[secret_forms.Form]]) -> None:
    assert learned(half(), seed=11) <= MOST_LEARNED


FAULTS: dict[str, Callable[[pytest.MonkeyPatch], None]] = {
    "no evidence": lambda patch: patch.setattr(randomness, "_runs", lambda *_: []),
    "names are not read": lambda patch: patch.setattr(
        screen, "_RULES", tuple(rule for rule in screen._RULES if rule is not secret_rules.named_values)
    ),
    "words are not completed": lambda patch: patch.setattr(screen, "_word", lambda text, start, end: (start, end)),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_weaker_screen_is_noticed(monkeypatch: pytest.MonkeyPatch, fault: str) -> None:
    """Each part of the screen is needed: without it clearly more cases are learned."""
    whole = learned(secret_forms.forms(), seed=11)
    FAULTS[fault](monkeypatch)
    assert learned(secret_forms.forms(), seed=11) > 1.3 * whole


def test_rules_of_the_detector_find_their_examples() -> None:
    """Every converted rule takes part: an example of it is found by `known_forms` alone."""
    rules = detector_rules.rules_of(_asset(RULES_FILE).decode())
    assert len(rules) > 150
    missed = []
    for rule in rules:
        examples = [detector_rules.example(rule["pattern"], random.Random(seed)) for seed in range(8)]
        found = [any(secret_rules.known_forms(secret_rules.Subject.of(text))) for text in examples]
        missed += [rule["id"]] if sum(found) < 4 else []
    assert missed == []


def test_rules_of_the_detector_carry_their_licence() -> None:
    assert b"MIT License" in _asset(RULES_FILE)
    assert b"Copyright (c) 2019 Zachary Rice" in _asset(RULES_FILE)


def test_screen_loads_no_network() -> None:
    """The rules are data: no module of a detector is imported, and none that speaks to a network."""
    import subprocess
    import sys

    code = (
        "import sys; from c2l_lsp.repo.filter import screen; screen.secret_spans('x = 1');"
        "print([m for m in sys.modules if m.split('.')[0] in ('requests', 'urllib3', 'http', 'ssl', 'detect_secrets')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    "text",
    [
        "from c2l_lsp.repo.filter import randomness, screen, secret_rules\n",
        'ALPHABET = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"\n',
        'format = "%Y-%m-%dT%H:%M:%S"\n',
        'pattern = re.compile(r"^[A-Za-z_][A-Za-z0-9_]*$")\n',
        'password = forms.CharField(label="Password", widget=forms.PasswordInput)\n',
        'token = request.headers.get("X-Request-Token")\n',
        '"password": "The two password fields did not match.",\n',
        'url = "https://docs.python.org/3/library/secrets.html#module-secrets"\n',
        'import (\n\t"fmt"\n\t"io"\n\t"os"\n\t"strconv"\n\t"unsafe"\n\n\t"golang.org/x/sys/unix"\n)\n',
        "requests.certs\n~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~\n",
        'raise NotImplementedError("subclasses of HTTPConnectionPool must provide a getconn() method")\n',
        "postgresql://user:password@localhost/test\n",
        'VERSION = "2024.11.30.post1"\n',
    ],
)
def test_ordinary_text_stays(text: str) -> None:
    assert redacted(text) == text


def test_literal_over_lines_is_redacted_with_its_joints() -> None:
    first, second = "q7XbN2vKz8RtYw3L", "mPc5HsDf9JgA1bC2"
    text = f'TOKEN = (\n    "{first}"\n    "{second}"\n)\nNEXT = 1\n'
    found = redacted(text)
    assert (found.count("\n"), len(found)) == (text.count("\n"), len(text))
    assert pieces(found) == ['TOKEN = (\n    "', '"\n)\nNEXT = 1\n']


def test_key_block_is_redacted_to_its_end() -> None:
    rng = random.Random(4)
    form = next(form for form in secret_forms.forms() if form.kind == "rsa key")
    text = f"before = 1\nKEY = '''{form.value(rng).text}'''\nafter = 2\n"
    assert pieces(redacted(text)) == ["before = 1\nKEY = '''", "'''\nafter = 2\n"]


def test_text_with_letters_that_change_length_in_lower_case() -> None:
    value = "q7XbN2vKz8RtYw3LmPc5"
    text = f'# İİİİİİİİ\npassword = "{value}"\nx = 1\n'
    assert pieces(redacted(text)) == ['# İİİİİİİİ\npassword = "', '"\nx = 1\n']


def test_tables_have_their_shape() -> None:
    assert len(_asset(COSTS_FILE)) == randomness.CLASSES**4 + randomness.LETTERS**3 + randomness.SYMBOLS


def _asset(name: str) -> bytes:
    from importlib import resources

    return resources.files(screen.__package__).joinpath(name).read_bytes()


# --- time -------------------------------------------------------------------------------------------------------------

SIZE = 512 * 1024
LONGEST_STEP_S = 0.05
HOSTILE = {
    unit[:24]: unit
    for unit in [
        "token", "token=", "apikey", "sk-", "gh", "://a:", 'key = "', '"', "\"'", '" ', '"+ ', '"' + " " * 199, "'",
        "eyJ", "eyJ.", ".eyJ" + "a" * 3900 + "! ", 'password = "a"\n', "a1" * 2000 + "\n", "a1b2c3d4e5f6 ", "abc ",
        "abc " * 11 + "the ", "-----BEGIN RSA PRIVATE KEY-----\n", "\\x41", "import (\n", "A", "aA1$", "key" + "." * 30,
        "xapp-1-", "sgp_", 'kraken = "', "\n", " ", '("\n', "password: " + " " * 20 + "str = ", "AKIA" + "A" * 12,
        "Abcdefgh12", "é", "İ", "token" * 8 + '="' + "a1" * 256 + '"\n', MARK,
        "token" + " " * 20 + ":" + " " * 4 + "a" * 20 + " " * 4 + "(" + " " * 20 + "brbr\n",
    ]
}  # fmt: skip
"""Text that is repeated, in one line if it has no line break."""


def _random_text(kind: str, size: int) -> str:
    rng = random.Random(1)
    letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJ0123456789"
    return {
        "lines": lambda: "\n".join("".join(rng.choices(letters, k=60)) for _ in range(size // 61)),
        "words": lambda: " ".join("".join(rng.choices(letters, k=12)) for _ in range(size // 13)),
        "quotes": lambda: "".join(rng.choices(letters + " \"'=:`", k=size)),
        "quoted": lambda: "".join(f"'{''.join(rng.choices(letters, k=12))}' + " for _ in range(size // 17)),
    }[kind]()


def _repeated(unit: str, size: int) -> str:
    return (unit * (size // len(unit) + 1))[:size]


def _longest_step(text: str) -> float:
    """CPU seconds of this thread in the longest step. A run that is too long is repeated: the machine may be busy."""
    runs = [LONGEST_STEP_S]
    while min(runs) >= LONGEST_STEP_S and len(runs) < 4:
        work, longest = screen.secret_spans_in_slices(text), 0.0
        while True:
            began = time.thread_time()
            done = next(work, "done")
            longest = max(longest, time.thread_time() - began)
            if done == "done":
                break
        runs.append(longest)
    return min(runs[1:])


@pytest.mark.parametrize("name", HOSTILE)
def test_steps_are_short_and_the_time_is_linear(name: str) -> None:
    assert _longest_step(_repeated(HOSTILE[name], SIZE)) < LONGEST_STEP_S
    assert_linear(lambda size: lambda: screen.secret_spans(_repeated(HOSTILE[name], size)), 16 * 1024)


@pytest.mark.parametrize("kind", ["lines", "words", "quotes", "quoted"])
def test_steps_are_short_in_random_text(kind: str) -> None:
    assert _longest_step(_random_text(kind, SIZE)) < LONGEST_STEP_S
