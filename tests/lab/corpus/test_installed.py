from __future__ import annotations

from pathlib import Path

import pytest
from c2l_lab.corpus import corpus, installed, licence

from tests.support.training_text import module


def unpack_wheel(
    site: Path, name: str, licence_line: str, home: str = "https://github.com/someone/thing", files: int = 2
) -> Path:
    """Create an unpack_wheel wheel in a folder of its own."""
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


def build(site: Path, out: Path, disjoint: str = "") -> dict[str, object]:
    (site.parent / "disjoint.txt").write_text(disjoint)
    return corpus.build([], Path(), out, workers=1, site=site, disjoint_from=[site.parent / "disjoint.txt"])


def test_distributions_are_listed_with_licence_and_version(tmp_path: Path) -> None:
    site = tmp_path / "site"
    unpack_wheel(site, "good", "Classifier: License :: OSI Approved :: MIT License")
    unpack_wheel(site, "express", "License-Expression: BSD-3-Clause")
    unpack_wheel(site, "copyleft", "License: GPL-3.0-or-later")
    unpack_wheel(site, "silent", "Summary: nothing said")
    made = build(site, tmp_path / "out")
    found = {repository["name"]: (repository["licence"], repository["commit"]) for repository in made["repositories"]}  # type: ignore[attr-defined]
    assert found == {"pypi/good": ("MIT", "1.2"), "pypi/express": ("BSD", "1.2")}
    assert made["skipped"] == {"pypi/copyleft": "licence GPL", "pypi/silent": "no licence found"}
    assert {d.repo for d in corpus.documents(tmp_path / "out")} == set(found)


@pytest.mark.parametrize("disjoint", ["Held/out-one", "other/good_one"])
def test_distributions_on_a_disjoint_list_are_skipped_by_owner_and_name(tmp_path: Path, disjoint: str) -> None:
    site = tmp_path / "site"
    unpack_wheel(site, "good_one", "License: MIT", "https://github.com/held/elsewhere")
    unpack_wheel(site, "kept", "License: MIT")
    made = build(site, tmp_path / "out", disjoint + "\n")
    assert [repository["name"] for repository in made["repositories"]] == ["pypi/kept"]  # type: ignore[attr-defined]
    assert "must be disjoint from" in made["skipped"]["pypi/good-one"]  # type: ignore[index]


def test_a_new_disjoint_list_applies_to_distributions_read_before(tmp_path: Path) -> None:
    site = tmp_path / "site"
    unpack_wheel(site, "early", "License: MIT", "https://github.com/held/early")
    unpack_wheel(site, "kept", "License: MIT")
    assert len(build(site, tmp_path / "out")["repositories"]) == 2  # type: ignore[arg-type]
    later = build(site, tmp_path / "out", "held/anything\n")
    assert [repository["name"] for repository in later["repositories"]] == ["pypi/kept"]  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("words", "line", "expected"),
    [
        ("Business Source License 1.1\nChange License: Apache License, Version 2.0", "License: BSL", "proprietary"),
        ("Permission is hereby granted, free of charge, to any person obtaining", "License: LGPLv3", "GPL"),
        ("Permission is hereby granted, free of charge, to any person obtaining", "Summary: x", "MIT"),
    ],
)
def test_licence_is_permissive_only_if_text_and_metadata_agree(
    tmp_path: Path, words: str, line: str, expected: str
) -> None:
    folder = unpack_wheel(tmp_path / "site", "two_voices", line)
    info = folder / "two_voices-1.2.dist-info"
    (info / "LICENSE").write_text(words)
    with (info / "RECORD").open("a") as record:
        record.write("two_voices-1.2.dist-info/LICENSE,,\n")
    (distribution,) = installed.find_distributions(tmp_path / "site").values()
    assert installed.licence_of(distribution) == expected


def test_large_distribution_is_limited_and_files_outside_it_are_not_read(tmp_path: Path) -> None:
    folder = unpack_wheel(tmp_path / "site", "large", "License: MIT", files=9)
    (tmp_path / "site" / "escape.py").write_text("x = 1\n")
    (distribution,) = installed.find_distributions(tmp_path / "site").values()
    everything = [path for path, _, _ in installed.distribution_files(distribution, 10**9)]
    assert len(everything) == 9
    assert all(".." not in path for path in everything)
    size = (folder / "large" / "m0.py").stat().st_size
    assert len(list(installed.distribution_files(distribution, 3 * size))) < 6


def test_metadata_that_cannot_be_serialised_is_read_as_text(tmp_path: Path) -> None:
    unpack_wheel(tmp_path / "site", "odd", "License: MIT\nDescription: \n\nIntro: x\n .. image:: y: z")
    (distribution,) = installed.find_distributions(tmp_path / "site").values()
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
    assert licence.licence_in_metadata(text) == expected
