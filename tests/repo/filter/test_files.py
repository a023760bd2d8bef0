"""What may be read, how much of it, and that odd files neither block nor let out."""

import os
import re
import socket
import threading
import time
from collections.abc import Callable
from hashlib import blake2b
from pathlib import Path

import pytest

from c2l_lsp import config
from c2l_lsp.errors import FolderError
from c2l_lsp.repo.filter import reading
from c2l_lsp.repo.filter.files import LANGUAGE_SUFFIXES, FileFilter, FileText, Refusal
from tests.support.git_repositories import write


def rules(root: Path, **settings: object) -> FileFilter:
    return FileFilter(root, config.Files(**settings))


def test_a_file_is_read_as_it_is(tmp_path: Path):
    data = b"\xef\xbb\xbfx = '\xf0\x9f\x8d\x8b \xc2\x85'\r\n\x0cy = 1\n"
    write(tmp_path, {"a.py": data})
    found = rules(tmp_path).read("a.py")
    assert found == FileText(
        data.decode(), blake2b(data, digest_size=16).digest(), len(data), (tmp_path / "a.py").stat().st_mtime_ns
    )


def test_the_walk_is_sorted_and_keeps_to_the_languages(tmp_path: Path):
    write(
        tmp_path, dict.fromkeys(["b/x.py", "b.py", "a/z.pyi", "a/UPPER.PY", "a.txt", "c.rs", "b-x.py", "é.py"], "x\n")
    )
    walked = list(rules(tmp_path).walk())
    assert walked == sorted(walked)
    assert set(walked) == {"b/x.py", "b.py", "a/z.pyi", "a/UPPER.PY", "b-x.py", "é.py"}
    assert set(rules(tmp_path, languages=["rust"]).walk()) == {"c.rs"}
    assert not rules(tmp_path).is_ignored("a.txt")


def test_an_unknown_language_is_named_and_the_rest_works(tmp_path: Path):
    write(tmp_path, {"a.py": "x\n"})
    found = rules(tmp_path, languages=["python", "klingon"])
    assert list(found.walk()) == ["a.py"]
    assert "'klingon'" in str(found.errors[0])
    assert all(suffix.startswith(".") for suffixes in LANGUAGE_SUFFIXES.values() for suffix in suffixes)


def test_a_folder_that_cannot_be_one(tmp_path: Path):
    write(tmp_path, {"file": "x"})
    with pytest.raises(FolderError, match="is not a folder"):
        rules(tmp_path / "file")
    with pytest.raises(FolderError, match="cannot be opened"):
        rules(tmp_path / "missing")


# --- odd files ----------------------------------------------------------------------------------------------------


def fifo(path: Path) -> None:
    os.mkfifo(path)


def dev_zero(path: Path) -> None:
    path.symlink_to("/dev/zero")


def a_socket(path: Path) -> None:
    here = Path.cwd()
    os.chdir(path.parent)  # a socket's name is short
    try:
        with socket.socket(socket.AF_UNIX) as bound:
            bound.bind(path.name)
    finally:
        os.chdir(here)


def sparse(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(1 << 30)


def forbidden(path: Path) -> None:
    path.write_text("x\n")
    path.chmod(0)


ODD: dict[str, tuple[Callable[[Path], object], Refusal]] = {
    "FIFO": (fifo, Refusal.IRREGULAR),
    "link to a device": (dev_zero, Refusal.LINK),
    "socket": (a_socket, Refusal.IRREGULAR),
    "folder": (Path.mkdir, Refusal.IRREGULAR),
    "link to itself": (lambda path: path.symlink_to(path.name), Refusal.LINK),
    "link out of the folder": (lambda path: path.symlink_to("/etc/hostname"), Refusal.LINK),
    "link to a sibling": (lambda path: path.symlink_to("plain.py"), Refusal.LINK),
    "1 GB": (sparse, Refusal.TOO_LARGE),
    "too large by a byte": (lambda path: path.write_bytes(b"#" * (512 * 1024 + 1)), Refusal.TOO_LARGE),
    "NUL": (lambda path: path.write_bytes(b"x = 1\n\0"), Refusal.BINARY),
    "UTF-16": (lambda path: path.write_text("x = 1\n", encoding="utf-16"), Refusal.BINARY),
    "invalid UTF-8": (lambda path: path.write_bytes(b"x = '\xff'\n"), Refusal.BINARY),
    "surrogate in UTF-8": (lambda path: path.write_bytes(b"x = '\xed\xa0\x80'\n"), Refusal.BINARY),
    "minified": (lambda path: path.write_text("x=1;" * 2000), Refusal.MINIFIED),
    "missing": (lambda path: None, Refusal.MISSING),
}


@pytest.mark.parametrize("kind", ODD)
def test_odd_files_are_refused_at_once(tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch):
    make, reason = ODD[kind]
    write(tmp_path, {"plain.py": "x\n"})
    make(tmp_path / "odd.py")
    read = []
    real = os.read
    monkeypatch.setattr(os, "read", lambda descriptor, n: read.append(len(data := real(descriptor, n))) or data)
    found = rules(tmp_path)
    list(found.walk())
    began = time.monotonic()
    assert found.try_read("odd.py") is reason
    assert time.monotonic() - began < 0.1
    assert sum(read) <= 1 << 20
    if reason is Refusal.TOO_LARGE:
        assert sum(read) == 0, "the size is asked before reading"
    assert found.read("odd.py") is None
    assert found.read("plain.py") is not None


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_forbidden_file_is_refused(tmp_path: Path):
    forbidden(tmp_path / "odd.py")
    assert rules(tmp_path).try_read("odd.py") is Refusal.UNREADABLE


def test_a_file_that_cannot_be_opened_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def refuse(*_: object, **__: object) -> int:
        raise PermissionError(13, "no")

    write(tmp_path, {"a.py": "x\n"})
    found = rules(tmp_path)
    assert found.includes("a.py")
    monkeypatch.setattr(os, "open", refuse)
    assert found.try_read("a.py") is Refusal.UNREADABLE


def test_the_largest_file_is_read(tmp_path: Path):
    write(tmp_path, {"a.py": "# 56789\n" * (64 * 1024)})
    assert rules(tmp_path).read("a.py") is not None
    assert rules(tmp_path, max_size_kb=511).read("a.py") is None


def test_a_file_that_grows_while_it_is_read_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    write(tmp_path, {"a.py": "x\n"})
    real = os.read
    monkeypatch.setattr(os, "read", lambda descriptor, n: real(descriptor, n) + b"#\n" * min(n // 2, 1 << 16))
    assert rules(tmp_path, max_size_kb=100).try_read("a.py") is Refusal.TOO_LARGE


def test_linked_folders_are_not_entered_and_not_read_through(tmp_path: Path):
    write(tmp_path, {"outside/secret_plan.py": "x\n", "root/a.py": "x\n", "root/pkg/b.py": "x\n"})
    (tmp_path / "root/out").symlink_to(tmp_path / "outside")
    (tmp_path / "root/loop").symlink_to(tmp_path / "root")
    (tmp_path / "root/pkg/up").symlink_to("..")
    found = rules(tmp_path / "root")
    assert list(found.walk()) == ["a.py", "pkg/b.py"]
    for path in ("out/secret_plan.py", "loop/a.py", "pkg/up/a.py", "loop/loop/loop/a.py"):
        assert found.try_read(path) is Refusal.LINK
        assert found.check_text(path, "x = 1\n") is None
    assert list(found.walk_in_steps("out")) == []


def test_without_openat_links_are_refused_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(reading, "_BY_DESCRIPTOR", False)
    write(tmp_path, {"outside/x.py": "x\n", "root/a.py": "x\n"})
    (tmp_path / "root/out").symlink_to(tmp_path / "outside")
    (tmp_path / "root/link.py").symlink_to("a.py")
    os.mkfifo(tmp_path / "root/fifo.py")
    found = rules(tmp_path / "root")
    assert found.read("a.py") is not None
    assert found.try_read("out/x.py") is Refusal.LINK
    assert found.try_read("link.py") is Refusal.LINK
    assert found.try_read("fifo.py") is Refusal.IRREGULAR


def test_a_folder_swapped_for_a_link_while_reading_lets_nothing_out(tmp_path: Path):
    """What was checked and what is opened must be the same thing."""
    write(
        tmp_path, {"outside/x.py": "outside = 1\n", "root/pkg/x.py": "inside = 1\n", "root/pkg2/x.py": "inside = 2\n"}
    )
    pkg, aside, link = tmp_path / "root/pkg", tmp_path / "root/aside", tmp_path / "root/link"
    link.symlink_to(tmp_path / "outside")
    found = rules(tmp_path / "root")
    over = threading.Event()

    def swap() -> None:
        while not over.is_set():
            pkg.rename(aside)
            link.rename(pkg)
            pkg.rename(link)
            aside.rename(pkg)

    swapper = threading.Thread(target=swap)
    swapper.start()
    try:
        texts = {file.text for _ in range(1500) if (file := found.read("pkg/x.py"))}
    finally:
        over.set()
        swapper.join()
    assert texts <= {"inside = 1\n"}


def test_a_root_that_is_a_link_is_that_folder(tmp_path: Path):
    write(tmp_path, {"real/a.py": "x\n"})
    (tmp_path / "link").symlink_to("real")
    found = rules(tmp_path / "link")
    assert found.root == (tmp_path / "real").resolve()
    assert found.read("a.py") is not None


def test_file_names_that_are_no_text_are_left_out(tmp_path: Path):
    try:
        (tmp_path / os.fsdecode(b"\xff.py")).write_text("x\n")
    except OSError:
        pytest.skip("this file system knows only text")
    write(tmp_path, {"a.py": "x\n"})
    assert list(rules(tmp_path).walk()) == ["a.py"]


# --- secrets ------------------------------------------------------------------------------------------------------

# Joined at run time, so that nothing in this repository looks like a secret to a scanner.
RANDOM = "q7Xb" + "N2vKz" + "8RtYw" + "3LmPc" + "5HsDf" + "9Jg"
CANARIES = {
    "private key": "-----BEGIN " + "RSA PRIVATE KEY-----\nMIIE\n-----END",
    "OpenSSH key in a string": 'KEY = """-----BEGIN ' + 'OPENSSH PRIVATE KEY-----\nb3Blbn\n"""',
    "PGP key": "-----BEGIN " + "PGP PRIVATE KEY BLOCK-----",
    "AWS": "aws = '" + "AKIA" + "Z7Q2M4N6P8R1S3T5" + "'",
    "GitHub": "# ghp" + "_" + "a1B2c3D4" * 5,
    "Slack": "xoxb" + "-123456789012-" + RANDOM,
    "web token": "eyJ" + "hbGciOiJIUzI1NiJ9" + ".eyJ" + "zdWIiOiIxMjM0NTY3ODkwIn0." + RANDOM,
    "assigned": f'API_KEY = "{RANDOM}"',
    "annotated": f'db_password: str = "{RANDOM}"',
    "in a dict": f'{{"client_secret": "{RANDOM}"}}',
    "in an environment": f'os.environ["GITHUB_TOKEN"] = "{RANDOM}"',
    "as an argument": f'os.environ.setdefault("access_key", "{RANDOM}")',
    "hexadecimal": 'SECRET = "' + "9f86d081" + "884c7d65" + "9a2feaa0" + "c55ad015" + '"',
    "header": f'headers = {{"Authorization": "Bearer {RANDOM}"}}',
    "in a URL": f'URL = "postgres://admin:{RANDOM}@db.internal/app"',
}
HARMLESS = [
    "token = tokenizer.next_token(stream)",
    'password = "<your password here>"',
    'TOKEN_CLASS = "Qwen2_5OmniToken2WavBigVGANModel"',
    'SECRET_PATH = "config/v1/templates/secret_names_2.txt"',
    'url = "https://user:password@example.org/path"',
    'cache_key = "3f2504e04f8911d39a0c0305e82c3301"',
    'api_key = os.environ["OPENAI_API_KEY_2"]',
    'assert re.match("-----BEGIN CERTIFICATE-----", text)',
    'token_format = f"{prefix1}-{suffix2}-{third3}-{fourth4}"',
]


@pytest.mark.parametrize("kind", CANARIES)
def test_content_with_a_secret_is_refused(tmp_path: Path, kind: str):
    text = f"import os\n\n{CANARIES[kind]}\n"
    write(tmp_path, {"a.py": text})
    found = rules(tmp_path)
    assert found.try_read("a.py") is Refusal.SECRET
    assert found.check_text("a.py", text) is None


@pytest.mark.parametrize("line", HARMLESS)
def test_ordinary_code_is_no_secret(tmp_path: Path, line: str):
    write(tmp_path, {"a.py": f"{line}\n"})
    assert rules(tmp_path).try_read("a.py") is not Refusal.SECRET


@pytest.mark.parametrize(
    "unit", ["token" * 900 + "\n", "sk-" * 1600 + "\n", "://a:" * 900 + "\n", 'key = "' * 700 + "\n"]
)
def test_looking_for_secrets_takes_no_time_on_hostile_text(tmp_path: Path, unit: str):
    write(tmp_path, {"a.py": unit * (500_000 // len(unit))})
    began = time.monotonic()
    rules(tmp_path).try_read("a.py")
    assert time.monotonic() - began < 5.0  # quadratic searching takes minutes


def test_a_buffer_obeys_the_same_rules(tmp_path: Path):
    write(tmp_path, {".gitignore": "hidden.py\n", "a.py": "x\n"})
    found = rules(tmp_path, max_size_kb=1)
    kept = found.check_text("new/b.py", "b = 1\r\n")
    assert kept is not None
    assert (kept.text, kept.mtime_ns, kept.size) == ("b = 1\r\n", 0, 7)
    assert kept.digest == blake2b(b"b = 1\r\n", digest_size=16).digest()
    refused = {"hidden.py": "x", "a.txt": "x", ".env.py": "x", "a.py": "\0", "b.py": "\ud800", "c.py": "#" * 1025}
    assert [path for path, text in refused.items() if found.check_text(path, text)] == []


# --- digest -------------------------------------------------------------------------------------------------------


def test_the_digest_names_the_rules_and_nothing_else(tmp_path: Path):
    write(tmp_path, {"pkg/sub/a.py": "x\n", ".gitignore": "*.log\n"})
    first = rules(tmp_path).digest
    assert re.fullmatch("[0-9a-f]{32}", first)
    walked = rules(tmp_path)
    list(walked.walk())
    write(tmp_path, {"pkg/sub/a.py": "changed\n", "b.py": "new\n"})
    assert first == walked.digest == walked.reloaded().digest
    assert rules(tmp_path, exclude=["x"]).digest != first
    assert rules(tmp_path, max_size_kb=1).digest != first
    assert rules(tmp_path, languages=["rust"]).digest != first


@pytest.mark.parametrize("path", [".gitignore", "pkg/sub/.gitignore", "pkg/.c2lignore"])
def test_the_digest_changes_with_any_ignore_file(tmp_path: Path, path: str):
    write(tmp_path, {"pkg/sub/a.py": "x\n"})
    held = rules(tmp_path)
    before = held.digest
    write(tmp_path, {path: "hidden.py\n"})
    assert held.affects_rules(path)
    assert held.digest == before
    assert held.reloaded().digest != before
