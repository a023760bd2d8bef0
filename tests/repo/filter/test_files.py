"""Which files may be read, size limits, and irregular files, which must neither block nor leak."""

import os
import re
import socket
import threading
import time
from collections.abc import Callable
from hashlib import blake2b
from pathlib import Path

import pytest

from c2l_lsp import config, regular_files
from c2l_lsp.cooperative import Slices
from c2l_lsp.errors import FolderError
from c2l_lsp.languages import LANGUAGE_SUFFIXES
from c2l_lsp.redaction import MARK
from c2l_lsp.repo.filter.files import FileFilter, FileText, Refusal
from c2l_lsp.repo.filter.plain_text import MAX_LINE_LENGTH
from tests.support.git_repositories import write


def filter_of(root: Path, **settings: object) -> FileFilter:
    return FileFilter(root, config.Files(**settings))


def test_file_is_read_unchanged(tmp_path: Path):
    data = b"\xef\xbb\xbfx = '\xf0\x9f\x8d\x8b \xc2\x85'\r\n\x0cy = 1\n"
    write(tmp_path, {"a.py": data})
    found = filter_of(tmp_path).read("a.py")
    assert found == FileText(
        data.decode(), blake2b(data, digest_size=16).digest(), len(data), (tmp_path / "a.py").stat().st_mtime_ns
    )


def test_walk_is_sorted_and_limited_to_the_languages(tmp_path: Path):
    write(
        tmp_path, dict.fromkeys(["b/x.py", "b.py", "a/z.pyi", "a/UPPER.PY", "a.txt", "c.rs", "b-x.py", "é.py"], "x\n")
    )
    walked = list(filter_of(tmp_path).walk())
    assert walked == sorted(walked)
    assert set(walked) == {"b/x.py", "b.py", "a/z.pyi", "a/UPPER.PY", "b-x.py", "é.py"}
    assert set(filter_of(tmp_path, languages=["rust"]).walk()) == {"c.rs"}
    assert not filter_of(tmp_path).is_ignored("a.txt")


def test_unknown_language_is_skipped(tmp_path: Path):
    write(tmp_path, {"a.py": "x\n"})
    found = filter_of(tmp_path, languages=["python", "klingon"])
    assert list(found.walk()) == ["a.py"]
    assert all(suffix.startswith(".") for suffixes in LANGUAGE_SUFFIXES.values() for suffix in suffixes)


def test_root_that_is_not_a_folder_raises(tmp_path: Path):
    write(tmp_path, {"file": "x"})
    with pytest.raises(FolderError, match="is not a folder"):
        filter_of(tmp_path / "file")
    with pytest.raises(FolderError, match="cannot be opened"):
        filter_of(tmp_path / "missing")


# --- irregular files ----------------------------------------------------------------------------------------------


def make_fifo(path: Path) -> None:
    os.mkfifo(path)


def link_to_dev_zero(path: Path) -> None:
    path.symlink_to("/dev/zero")


def make_socket(path: Path) -> None:
    here = Path.cwd()
    os.chdir(path.parent)  # the name of a socket is limited to about 100 bytes
    try:
        with socket.socket(socket.AF_UNIX) as bound:
            bound.bind(path.name)
    finally:
        os.chdir(here)


def make_sparse_file(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(1 << 30)


def make_unreadable(path: Path) -> None:
    path.write_text("x\n")
    path.chmod(0)


IRREGULAR: dict[str, tuple[Callable[[Path], object], Refusal]] = {
    "FIFO": (make_fifo, Refusal.IRREGULAR),
    "link to a device": (link_to_dev_zero, Refusal.LINK),
    "socket": (make_socket, Refusal.IRREGULAR),
    "folder": (Path.mkdir, Refusal.IRREGULAR),
    "link to itself": (lambda path: path.symlink_to(path.name), Refusal.LINK),
    "link out of the folder": (lambda path: path.symlink_to("/etc/hostname"), Refusal.LINK),
    "link to a sibling": (lambda path: path.symlink_to("plain.py"), Refusal.LINK),
    "1 GB": (make_sparse_file, Refusal.TOO_LARGE),
    "too large by a byte": (lambda path: path.write_bytes(b"#" * (512 * 1024 + 1)), Refusal.TOO_LARGE),
    "NUL": (lambda path: path.write_bytes(b"x = 1\n\0"), Refusal.BINARY),
    "UTF-16": (lambda path: path.write_text("x = 1\n", encoding="utf-16"), Refusal.BINARY),
    "invalid UTF-8": (lambda path: path.write_bytes(b"x = '\xff'\n"), Refusal.BINARY),
    "surrogate in UTF-8": (lambda path: path.write_bytes(b"x = '\xed\xa0\x80'\n"), Refusal.BINARY),
    "minified": (lambda path: path.write_text("x=1;" * 2000), Refusal.MINIFIED),
    "missing": (lambda path: None, Refusal.MISSING),
}


@pytest.mark.parametrize("kind", IRREGULAR)
def test_irregular_files_are_refused_at_once(tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch):
    make, reason = IRREGULAR[kind]
    write(tmp_path, {"plain.py": "x\n"})
    make(tmp_path / "odd.py")
    read = []
    real = os.read
    monkeypatch.setattr(os, "read", lambda descriptor, n: read.append(len(data := real(descriptor, n))) or data)
    found = filter_of(tmp_path)
    list(found.walk())
    began = time.monotonic()
    assert found.try_read("odd.py") is reason
    assert time.monotonic() - began < 0.1
    assert sum(read) <= 1 << 20
    if reason is Refusal.TOO_LARGE:
        assert sum(read) == 0, "the size is checked before reading"
    assert found.read("odd.py") is None
    assert found.read("plain.py") is not None


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_file_without_read_permission_is_refused(tmp_path: Path):
    make_unreadable(tmp_path / "odd.py")
    assert filter_of(tmp_path).try_read("odd.py") is Refusal.UNREADABLE


def test_file_that_cannot_be_opened_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def refuse(*_: object, **__: object) -> int:
        raise PermissionError(13, "no")

    write(tmp_path, {"a.py": "x\n"})
    found = filter_of(tmp_path)
    assert found.includes("a.py")
    monkeypatch.setattr(os, "open", refuse)
    assert found.try_read("a.py") is Refusal.UNREADABLE


def test_file_of_the_maximum_size_is_read(tmp_path: Path):
    write(tmp_path, {"a.py": "# 56789\n" * (64 * 1024)})
    assert filter_of(tmp_path).read("a.py") is not None
    assert filter_of(tmp_path, max_size_kb=511).read("a.py") is None


def test_file_that_grows_over_the_limit_while_it_is_read_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    write(tmp_path, {"a.py": "x\n"})
    real = os.read
    monkeypatch.setattr(os, "read", lambda descriptor, n: real(descriptor, n) + b"#\n" * min(n // 2, 1 << 16))
    assert filter_of(tmp_path, max_size_kb=100).try_read("a.py") is Refusal.TOO_LARGE


def test_linked_folders_are_not_entered(tmp_path: Path):
    write(tmp_path, {"outside/secret_plan.py": "x\n", "root/a.py": "x\n", "root/pkg/b.py": "x\n"})
    (tmp_path / "root/out").symlink_to(tmp_path / "outside")
    (tmp_path / "root/loop").symlink_to(tmp_path / "root")
    (tmp_path / "root/pkg/up").symlink_to("..")
    found = filter_of(tmp_path / "root")
    assert list(found.walk()) == ["a.py", "pkg/b.py"]
    for path in ("out/secret_plan.py", "loop/a.py", "pkg/up/a.py", "loop/loop/loop/a.py"):
        assert found.try_read(path) is Refusal.LINK
        assert found.check_text(path, "x = 1\n") is None
    assert list(found.walk_in_steps("out")) == []


def test_links_are_refused_without_openat(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(regular_files, "_HAS_OPENAT", False)
    write(tmp_path, {"outside/x.py": "x\n", "root/a.py": "x\n"})
    (tmp_path / "root/out").symlink_to(tmp_path / "outside")
    (tmp_path / "root/link.py").symlink_to("a.py")
    os.mkfifo(tmp_path / "root/make_fifo.py")
    found = filter_of(tmp_path / "root")
    assert found.read("a.py") is not None
    assert found.try_read("out/x.py") is Refusal.LINK
    assert found.try_read("link.py") is Refusal.LINK
    assert found.try_read("make_fifo.py") is Refusal.IRREGULAR


def test_folder_swapped_for_a_link_during_reading_leaks_nothing(tmp_path: Path):
    """The checked file and the opened file must be the same."""
    write(
        tmp_path, {"outside/x.py": "outside = 1\n", "root/pkg/x.py": "inside = 1\n", "root/pkg2/x.py": "inside = 2\n"}
    )
    pkg, aside, link = tmp_path / "root/pkg", tmp_path / "root/aside", tmp_path / "root/link"
    link.symlink_to(tmp_path / "outside")
    found = filter_of(tmp_path / "root")
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


def test_root_that_is_a_link_is_resolved(tmp_path: Path):
    write(tmp_path, {"real/a.py": "x\n"})
    (tmp_path / "link").symlink_to("real")
    found = filter_of(tmp_path / "link")
    assert found.root == (tmp_path / "real").resolve()
    assert found.read("a.py") is not None


def test_file_names_that_are_not_utf8_are_excluded(tmp_path: Path):
    try:
        (tmp_path / os.fsdecode(b"\xff.py")).write_text("x\n")
    except OSError:
        pytest.skip("this file system allows only UTF-8 names")
    write(tmp_path, {"a.py": "x\n"})
    assert list(filter_of(tmp_path).walk()) == ["a.py"]


# --- secrets ------------------------------------------------------------------------------------------------------

# Concatenated at run time, so that secret scanners find nothing in this repository.
RANDOM = "q7Xb" + "N2vKz" + "8RtYw" + "3LmPc" + "5HsDf" + "9Jg"
SECRETS = {
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
NOT_SECRETS = [
    "token = tokenizer.next_token(stream)",
    'password = "<your password here>"',
    'TOKEN_CLASS = "Qwen2_5OmniToken2WavBigVGANModel"',
    'SECRET_PATH = "config/v1/templates/secret_names_2.txt"',
    'url = "https://user:password@example.org/path"',
    'api_key = os.environ["OPENAI_API_KEY_2"]',
    'assert re.match("-----BEGIN CERTIFICATE-----", text)',
    'token_format = f"{prefix1}-{suffix2}-{third3}-{fourth4}"',
]


@pytest.mark.parametrize("kind", SECRETS)
def test_secret_is_redacted_and_the_rest_of_the_file_stays(tmp_path: Path, kind: str):
    text = f"import os\n\n{SECRETS[kind]}\n\n\ndef main():\n    return 1\n"
    write(tmp_path, {"a.py": text})
    found = filter_of(tmp_path)
    read, checked = found.read("a.py"), found.check_text("a.py", text)
    assert read is not None
    assert checked is not None
    for file in (read, checked):
        assert MARK in file.text
        assert (file.text[:11], file.text[-27:], len(file.text)) == (text[:11], text[-27:], len(text))
        assert file.digest == blake2b(file.text.encode(), digest_size=16).digest()
        assert RANDOM[:6] not in file.text


@pytest.mark.parametrize("line", NOT_SECRETS)
def test_ordinary_code_is_not_taken_for_a_secret(tmp_path: Path, line: str):
    write(tmp_path, {"a.py": f"{line}\n"})
    read = filter_of(tmp_path).read("a.py")
    assert read is not None
    assert read.text == f"{line}\n"


@pytest.mark.parametrize("length", [MAX_LINE_LENGTH - 1, MAX_LINE_LENGTH, MAX_LINE_LENGTH + 1])
@pytest.mark.parametrize("around", ["{}", "{}\n", "x\n{}\ny\n", "{}\n" + "short\n" * 3000, "short\n" * 3000 + "{}"])
def test_line_length_is_limited(tmp_path: Path, length: int, around: str):
    write(tmp_path, {"a.py": around.format("a " * (length // 2) + "a" * (length % 2))})
    expected = length > MAX_LINE_LENGTH
    assert (filter_of(tmp_path).try_read("a.py") is Refusal.MINIFIED) == expected


def test_reading_a_hostile_file_pauses(tmp_path: Path):
    """No step between two pauses takes 50 ms of this thread, with 512 kB full of secrets.

    The best of three readings counts: a busy machine slows single steps down.
    """
    longest = list[float]()
    for turn in range(3):  # a text of its own each time: results are kept
        line = f"{turn}, " + ", ".join(f"'{RANDOM[(number + turn) % 10 :][:16]}'" for number in range(200))
        write(tmp_path, {"a.py": (f"{line}\n" * (512 * 1024 // len(line)))[: 512 * 1024 - 1]})
        found = filter_of(tmp_path, max_size_kb=512)
        read, steps = _timed_steps(found.read_in_slices("a.py"))
        longest.append(max(steps))
        assert read is not None
        assert MARK in read.text
        assert len(steps) > 10
        assert found.read("a.py") == read
    assert min(longest) < 0.05


def _timed_steps(work: Slices[FileText | None]) -> tuple[FileText | None, list[float]]:
    """The result of some steps, and the CPU seconds of each."""
    steps = list[float]()
    while True:
        began = time.thread_time()
        try:
            next(work)
        except StopIteration as end:
            return end.value, [*steps, time.thread_time() - began]
        steps.append(time.thread_time() - began)


def test_same_rules_apply_to_buffers(tmp_path: Path):
    write(tmp_path, {".gitignore": "hidden.py\n", "a.py": "x\n"})
    found = filter_of(tmp_path, max_size_kb=1)
    kept = found.check_text("new/b.py", "b = 1\r\n")
    assert kept is not None
    assert (kept.text, kept.mtime_ns, kept.size) == ("b = 1\r\n", 0, 7)
    assert kept.digest == blake2b(b"b = 1\r\n", digest_size=16).digest()
    refused = {"hidden.py": "x", "a.txt": "x", ".env.py": "x", "a.py": "\0", "b.py": "\ud800", "c.py": "#" * 1025}
    assert [path for path, text in refused.items() if found.check_text(path, text)] == []


# --- digest -------------------------------------------------------------------------------------------------------


def test_digest_depends_on_the_rules_only(tmp_path: Path):
    write(tmp_path, {"pkg/sub/a.py": "x\n", ".gitignore": "*.log\n"})
    first = filter_of(tmp_path).digest
    assert re.fullmatch("[0-9a-f]{32}", first)
    walked = filter_of(tmp_path)
    list(walked.walk())
    write(tmp_path, {"pkg/sub/a.py": "changed\n", "b.py": "new\n"})
    assert first == walked.digest == walked.reloaded().digest
    assert filter_of(tmp_path, exclude=["x"]).digest != first
    assert filter_of(tmp_path, max_size_kb=1).digest != first
    assert filter_of(tmp_path, languages=["rust"]).digest != first


@pytest.mark.parametrize("path", [".gitignore", "pkg/sub/.gitignore", "pkg/.c2lignore"])
def test_digest_changes_with_every_ignore_file(tmp_path: Path, path: str):
    write(tmp_path, {"pkg/sub/a.py": "x\n"})
    held = filter_of(tmp_path)
    before = held.digest
    write(tmp_path, {path: "hidden.py\n"})
    assert held.affects_rules(path)
    assert held.digest == before
    assert held.reloaded().digest != before
