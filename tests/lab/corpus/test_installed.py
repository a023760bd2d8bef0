from __future__ import annotations

from pathlib import Path

import pytest
from c2l_lab.corpus import corpus, installed, licence

from tests.support.training_text import module


def unpacked(
    site: Path, name: str, licence_line: str, home: str = "https://github.com/someone/thing", files: int = 2
) -> Path:
    """A wheel of `name`, unpacked to a folder of its own."""
    folder = site / name
    info = folder / f"{name}-1.2.dist-info"
    info.mkdir(parents=True)
    paths = []
    for i in range(files):
        path = f"{name}/m{i}.py"
        (folder / name).mkdir(exist_ok=True)
        (folder / path).write_text(module(f"{name}{i}", i) * 3)
        paths.append(path)
    text = f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.2\n{licence_line}\nHome-page: {home}\n\nWords.\n"
    (info / "METADATA").write_text(text)
    (info / "RECORD").write_text("".join(f"{path},,\n" for path in [*paths, "../escape.py"]))
    return folder


def build(site: Path, out: Path, apart: str = "") -> dict[str, object]:
    (site.parent / "apart.txt").write_text(apart)
    return corpus.build([], Path(), out, workers=1, site=site, apart=[site.parent / "apart.txt"])


def test_distributions_become_repositories_with_licence_and_version(tmp_path: Path) -> None:
    site = tmp_path / "site"
    unpacked(site, "good", "Classifier: License :: OSI Approved :: MIT License")
    unpacked(site, "express", "License-Expression: BSD-3-Clause")
    unpacked(site, "copyleft", "License: GPL-3.0-or-later")
    unpacked(site, "silent", "Summary: nothing said")
    made = build(site, tmp_path / "out")
    found = {about["name"]: (about["licence"], about["commit"]) for about in made["repositories"]}  # type: ignore[attr-defined]
    assert found == {"pypi/good": ("MIT", "1.2"), "pypi/express": ("BSD", "1.2")}
    assert made["skipped"] == {"pypi/copyleft": "licence GPL", "pypi/silent": "no licence found"}
    assert {d.repo for d in corpus.documents(tmp_path / "out")} == set(found)


@pytest.mark.parametrize("apart", ["Held/out-one", "other/good_one"])
def test_what_must_stay_apart_is_left_out_by_owner_and_by_name(tmp_path: Path, apart: str) -> None:
    site = tmp_path / "site"
    unpacked(site, "good_one", "License: MIT", "https://github.com/held/elsewhere")
    unpacked(site, "kept", "License: MIT")
    made = build(site, tmp_path / "out", apart + "\n")
    assert [about["name"] for about in made["repositories"]] == ["pypi/kept"]  # type: ignore[attr-defined]
    assert "must stay apart" in made["skipped"]["pypi/good-one"]  # type: ignore[index]


def test_lists_that_come_later_hold_for_what_was_read_before(tmp_path: Path) -> None:
    site = tmp_path / "site"
    unpacked(site, "early", "License: MIT", "https://github.com/held/early")
    unpacked(site, "kept", "License: MIT")
    assert len(build(site, tmp_path / "out")["repositories"]) == 2  # type: ignore[arg-type]
    later = build(site, tmp_path / "out", "held/anything\n")
    assert [about["name"] for about in later["repositories"]] == ["pypi/kept"]  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("words", "line", "expected"),
    [
        ("Business Source License 1.1\nChange License: Apache License, Version 2.0", "License: BSL", "proprietary"),
        ("Permission is hereby granted, free of charge, to any person obtaining", "License: LGPLv3", "GPL"),
        ("Permission is hereby granted, free of charge, to any person obtaining", "Summary: x", "MIT"),
    ],
)
def test_what_either_the_text_or_the_metadata_forbids_is_not_permissive(
    tmp_path: Path, words: str, line: str, expected: str
) -> None:
    folder = unpacked(tmp_path / "site", "two_voices", line)
    info = folder / "two_voices-1.2.dist-info"
    (info / "LICENSE").write_text(words)
    with (info / "RECORD").open("a") as record:
        record.write("two_voices-1.2.dist-info/LICENSE,,\n")
    (distribution,) = installed.found_in(tmp_path / "site").values()
    assert installed.licence_of(distribution) == expected


def test_a_large_distribution_gives_a_share_and_nothing_outside_of_it(tmp_path: Path) -> None:
    folder = unpacked(tmp_path / "site", "large", "License: MIT", files=9)
    (tmp_path / "site" / "escape.py").write_text("x = 1\n")
    (distribution,) = installed.found_in(tmp_path / "site").values()
    everything = [path for path, _, _ in installed.files_of(distribution, 10**9)]
    assert len(everything) == 9
    assert all(".." not in path for path in everything)
    size = (folder / "large" / "m0.py").stat().st_size
    assert len(list(installed.files_of(distribution, 3 * size))) < 6


def test_metadata_whose_header_cannot_be_parsed_back_is_read_as_written(tmp_path: Path) -> None:
    unpacked(tmp_path / "site", "odd", "License: MIT\nDescription: \n\nIntro: x\n .. image:: y: z")
    (distribution,) = installed.found_in(tmp_path / "site").values()
    assert installed.licence_of(distribution) == "MIT"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("License-Expression: Apache-2.0", "Apache-2.0"),
        ("License-Expression: MIT OR GPL-2.0", "GPL"),
        ("Classifier: License :: OSI Approved :: GNU Lesser General Public License v3", "GPL"),
        ("Summary: an MIT project", "unknown"),
    ],
)
def test_licence_fields_of_metadata(text: str, expected: str) -> None:
    assert licence.of_metadata(text) == expected
