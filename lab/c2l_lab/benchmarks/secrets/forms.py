"""Secrets as they occur in source files, written from the formats of providers and from ordinary code.

The list knows nothing of the rules of `c2l_lsp/repo/filter`: it was written before them, from the providers'
documentation. It holds formats only. Values are generated at run time, so that no text of this repository looks like a
secret.

Every second form, in the order of a hash of its kind, is held out: rules may be tuned on `dev()` only.
"""

from __future__ import annotations

import base64
import hashlib
import random
import re
import string
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

_ALPHABETS = {
    "hex": string.digits + "abcdef",
    "HEX": string.digits + "ABCDEF",
    "digits": string.digits,
    "lower": string.ascii_lowercase,
    "lower36": string.ascii_lowercase + string.digits,
    "upper36": string.ascii_uppercase + string.digits,
    "b32": string.ascii_uppercase + "234567",
    "b58": "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz",
    "b62": string.ascii_letters + string.digits,
    "b64": string.ascii_letters + string.digits + "+/",
    "b64u": string.ascii_letters + string.digits + "-_",
    "bech32": "QPZRY9X8GF2TVDW0S3JN54KHCE6MUA7L",
    "django": string.ascii_lowercase + string.digits + "!@#$%^&*(-_=+)",
    "printable": string.ascii_letters + string.digits + "!#$%&*+-.:;<=>?@^_~",
}
_WORDS = """abandon anchor basket bright candle cannon dolphin dragon eagle ember falcon forest garden glacier
    harbor hazard island jungle kitten ladder marble meadow nectar orchid pepper quartz rabbit river
    saddle shadow summer sunset tiger timber umbrella velvet violin walnut winter yellow zebra castle
    rocket silver copper monkey purple orange""".split()  # noqa: SIM905
_TABLE = Path(__file__).with_suffix(".txt")
_PART = re.compile(r"<(\w+)(?::(\d+))?>")


CONTEXTS: dict[str, str] = {
    "assigned": '{NAME} = "{S}"\n',
    "assigned, single quotes": "{NAME} = '{S}'\n",
    "class attribute": 'class Config(Base):\n    DEBUG = False\n    {NAME} = "{S}"\n    TIMEOUT = 30\n',
    "annotated": '{name}: str | None = "{S}"\n',
    "annotated final": '{NAME}: Final[str] = "{S}"\n',
    "dataclass field": 'class Options:\n    {name}: str = field(default="{S}", repr=False)\n',
    "dictionary": 'CONFIG = {{\n    "debug": False,\n    "{name}": "{S}",\n    "retries": 3,\n}}\n',
    "keyword argument": 'client = Client("api.example.org", {name}="{S}", timeout=10)\n',
    "default argument": 'def connect(host, {name}="{S}"):\n    return Client(host, {name})\n',
    "positional argument": 'client = Client("api.example.org", "{S}")\n',
    "in parentheses": '{NAME} = ("{S}")\n',
    "in parentheses over lines": '{NAME} = (\n    "{S1}"\n    "{S2}"\n)\n',
    "concatenated": '{name} = "{S1}" + \\\n    "{S2}"\n',
    "comment": "# the old one was {S}\nretries = 3\n",
    "comment with the name": "# {NAME}={S}\nretries = 3\n",
    "docstring": 'def login():\n    """Log in.\n\n    Use {S} on staging.\n    """\n    return session()\n',
    "environment default": '{name} = os.environ.get("{NAME}", "{S}")\n',
    "getenv": '{NAME} = os.getenv("{NAME}") or "{S}"\n',
    "set environment": 'os.environ["{NAME}"] = "{S}"\n',
    "monkeypatch": '    monkeypatch.setenv("{NAME}", "{S}")\n',
    "header": 'headers = {{"Accept": "application/json", "X-{name}": "{S}"}}\n',
    "returned": 'def {name}():\n    return "{S}"\n',
    "list element": 'KNOWN = [\n    "first",\n    "{S}",\n]\n',
    "tuple": 'PAIRS = [("{name}", "{S}")]\n',
    "compared": 'if request.{name} == "{S}":\n    allow()\n',
    "triple quotes": '{NAME} = """{S}"""\n',
    "bytes": '{NAME} = b"{S}"\n',
    "raw string": '{NAME} = r"{S}"\n',
    "neutral name": 'value = "{S}"\n',
    "inside a sentence": 'log.info("connecting with {S} to the server")\n',
    "format string": 'url = f"{{base}}/v1/items?key={S}&page={{page}}"\n',
    "argparse": 'parser.add_argument("--{name}", default="{S}", help="see the wiki")\n',
    "shell in a string": 'run("export {NAME}={S} && ./deploy")\n',
    "javascript constant": "const {camel} = '{S}';\n",
    "typescript member": '  private readonly {camel}: string = "{S}";\n',
    "javascript object": "export default {{\n  debug: false,\n  {camel}: '{S}',\n}};\n",
    "javascript template": "const {camel} = `{S}`;\n",
    "go constant": 'const {camel} = "{S}"\n',
    "go short": '\t{camel} := "{S}"\n',
    "go struct": '\tcfg := Config{{{camel}: "{S}", Debug: false}}\n',
    "java member": '    private static final String {NAME} = "{S}";\n',
    "yaml": "service:\n  {name}: {S}\n  port: 80\n",
    "shell": "#!/bin/sh\nexport {NAME}={S}\n",
    "json": '{{"debug": false, "{camel}": "{S}"}}\n',
    "toml": '[service]\n{name} = "{S}"\n',
    "html": '<meta name="{name}" content="{S}">\n',
}
"""Kind of place → text. `{S}` is the secret, `{S1}` and `{S2}` its halves."""


@dataclass(frozen=True)
class Form:
    """One format of a secret, and the name that code gives it."""

    kind: str
    name: str
    format: str

    def value(self, rng: random.Random) -> Secret:
        """Return a random secret of this form."""
        out, parts, at = "", list[str](), 0
        for found in _PART.finditer(self.format):
            made = _made(rng, found[1], found[2] or "")
            out += self.format[at : found.start()] + made
            parts += made.splitlines()[1:-1] if "\n" in made else [made]  # of a key block, what is between its ends
            at = found.end()
        return Secret(out + self.format[at:], tuple(parts))


@dataclass(frozen=True)
class Secret:
    """A text, and its random parts."""

    text: str
    parts: tuple[str, ...]

    def leaks_into(self, text: str, shortest: int = 6) -> str:
        """Return `shortest` consecutive characters of a random part that `text` contains; "" if there are none."""
        for part in self.parts:
            for at in range(len(part) - shortest + 1):
                if (piece := part[at : at + shortest]) in text:
                    return piece
        return ""

    def placed(self, context: str, name: str) -> str:
        """Return the text of a context with the secret in it."""
        lower = name.lower()
        first, *rest = lower.split("_")
        half = len(self.text) // 2
        return CONTEXTS[context].format(
            S=self.text, S1=self.text[:half], S2=self.text[half:], NAME=name, name=lower,
            camel=first + "".join(map(str.capitalize, rest)),
        )  # fmt: skip


def forms() -> list[Form]:
    """Return all forms."""
    lines = _TABLE.read_text(encoding="utf-8").splitlines()
    rows = (line.split(" | ", 2) for line in lines if not line.startswith("#"))
    return [Form(*row) for row in rows]


def dev() -> list[Form]:
    """Return the forms on which rules may be tuned."""
    return _ordered()[::2]


def held_out() -> list[Form]:
    """Return the forms that no rule was tuned on."""
    return _ordered()[1::2]


def cases(some: list[Form], seed: int) -> Iterator[tuple[Form, str, Secret, str]]:
    """Yield (form, context, secret, text) for every form in every context that can hold it."""
    rng = random.Random(seed)  # noqa: S311 - examples, no secrets
    for form in some:
        for context in CONTEXTS:
            secret = form.value(rng)
            if "\n" in secret.text and context != "triple quotes":
                continue  # a text of several lines stands in triple quotes only
            yield form, context, secret, secret.placed(context, form.name)


def _ordered() -> list[Form]:
    return sorted(forms(), key=lambda form: hashlib.blake2b(form.kind.encode(), digest_size=8).digest())


def _made(rng: random.Random, kind: str, argument: str) -> str:
    if kind in _ALPHABETS:
        return "".join(rng.choice(_ALPHABETS[kind]) for _ in range(int(argument)))
    return _MAKERS[kind](rng, int(argument or "0"))


def _words(rng: random.Random, count: int, separator: str) -> str:
    return separator.join(rng.choice(_WORDS) for _ in range(count))


def _human(rng: random.Random, _: int) -> str:
    """A password as people choose it: two words, a year or a number, a sign."""
    first, second = (rng.choice(_WORDS).capitalize() for _ in range(2))
    return rng.choice(
        [
            f"{first}{second}{rng.randrange(10, 100)}!",
            f"{first}{rng.randrange(2015, 2031)}{rng.choice('!#$*')}",
            f"{first.lower()}_{second}{rng.randrange(10)}",
            f"{first[:3]}{rng.choice('#!%')}{second[:4]}{rng.randrange(100, 1000)}",
        ]
    )


def _leet(rng: random.Random, _: int) -> str:
    word = rng.choice([word for word in _WORDS if len(word) >= 6])
    return word.translate(str.maketrans("aeos", "4305")) + str(rng.randrange(100))


def _uuid(rng: random.Random, _: int) -> str:
    digits = f"{rng.getrandbits(128):032x}"
    return f"{digits[:8]}-{digits[8:12]}-4{digits[13:16]}-a{digits[17:20]}-{digits[20:]}"


def _basic(rng: random.Random, _: int) -> str:
    return base64.b64encode(f"deploy:{_human(rng, 0)}".encode()).decode()


def _escapes(rng: random.Random, count: int) -> str:
    return "".join(f"\\x{rng.randrange(256):02x}" for _ in range(count))


def _pem(rng: random.Random, _: int, kind: str = "RSA") -> str:
    lines = ["".join(rng.choice(_ALPHABETS["b64"]) for _ in range(64)) for _ in range(12)]
    dashes = "-" * 5
    return "\n".join([f"{dashes}BEGIN {kind} PRIVATE KEY{dashes}", *lines, f"{dashes}END {kind} PRIVATE KEY{dashes}"])


_MAKERS: dict[str, Callable[[random.Random, int], str]] = {
    "human": _human,
    "leet": _leet,
    "uuid": _uuid,
    "basic": _basic,
    "escapes": _escapes,
    "pemrsa": _pem,
    "pemec": lambda rng, _: _pem(rng, 0, "EC"),
    "pemopenssh": lambda rng, _: _pem(rng, 0, "OPENSSH"),
    "gmail": lambda rng, _: " ".join("".join(rng.choice(string.ascii_lowercase) for _ in range(4)) for _ in range(4)),
    "words": lambda rng, count: _words(rng, count, "-"),
    "mnemonic": lambda rng, count: _words(rng, count, " "),
}
