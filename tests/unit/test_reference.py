"""The generated reference pages and the site around them."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Annotated, Any

import msgspec
import pytest
import typer
from msgspec import Meta
from prometheus_client import Counter, Gauge, Histogram

import tradewind.reference.__main__ as command
from router_sync.gateway.config import GatewayConfig
from streams import signals
from streams.contract.rights import ROLES
from streams.contract.topics import TOPICS
from streams.settings import Settings
from tradewind.cli import app
from tradewind.reference import drift, pages
from tradewind.reference.structs import fields, inside
from tradewind.reference.words import default_in_words, kind_of

REPO = Path(__file__).parents[2]
DOCS = REPO / "docs"


def commands(group: Any, name: str = "tradewind") -> list[str]:
    inner = getattr(group, "commands", None)
    return [name] if inner is None else [path for word in inner for path in commands(inner[word], f"{name} {word}")]


@pytest.fixture(scope="module")
def made() -> dict[str, str]:
    return pages()


def test_the_pages_are_in_step_with_the_code() -> None:
    assert drift(DOCS / "reference") == [], "run `make reference`"


def test_every_command_has_a_heading_a_usage_line_and_its_options(made: dict[str, str]) -> None:
    page = made["cli.md"]
    for name in commands(typer.main.get_command(app)):
        assert re.search(rf"^##+ {name}$", page, re.M), name
        assert f"{name} [OPTIONS]" in page
    assert "`--bootstrap-servers HOST:PORT`" in page


def test_every_setting_topic_metric_role_and_gateway_field_has_a_row(made: dict[str, str]) -> None:
    for setting in Settings.model_fields:
        assert f"| `{setting}` |" in made["settings.md"]
    for topic in TOPICS:
        assert f"\n## {topic.name}\n" in made["topics.md"]
    for role in ROLES:
        assert f"| `{role.name}` |" in made["rights.md"]
    for kind in inside(GatewayConfig):
        for field in kind.__struct_fields__:
            assert f"| `{field}` |" in made["gateway.md"]
    declared = [m for m in vars(signals).values() if isinstance(m, Counter | Gauge | Histogram)]
    assert made["metrics.md"].count("| `tradewind_") == len(declared)


def test_rows_of_tables_have_as_many_cells_as_their_heads(made: dict[str, str]) -> None:
    for name, page in made.items():
        for table in re.findall(r"(?:^\|.*\|$\n?)+", page, re.M):
            widths = {len(re.findall(r"(?<!\\)\|", row)) for row in table.splitlines()}
            assert len(widths) == 1, (name, table)


def test_links_inside_the_pages_lead_somewhere(made: dict[str, str]) -> None:
    for name, page in made.items():
        there = {
            re.sub(r"[^\w\s-]", "", h.lower()).strip().replace(" ", "-") for h in re.findall(r"^#+ (.*)$", page, re.M)
        }
        assert set(re.findall(r"\]\(#([^)]+)\)", page)) <= there, name
        for file in re.findall(r"\]\((contract/[^)]+)\)", page):
            assert (DOCS / "reference" / file).exists(), (name, file)


class Pair(msgspec.Struct, kw_only=True):
    """Two of them."""

    left: Annotated[int, Meta(ge=1, le=9)]
    """The first."""
    right_: Annotated[float, Meta(gt=0)] | None = msgspec.field(name="right", default=None)
    where: Path = Path("here")


def test_a_struct_becomes_a_table_of_its_fields() -> None:
    assert fields(Pair).splitlines() == [
        "| Field | Value | Default | What |",
        "| --- | --- | --- | --- |",
        "| `left` | integer, 1 to 9 | required |  |",
        "| `right` | number, above 0 | none |  |",
        "| `where` | path | `here` |  |",
    ]


@pytest.mark.parametrize(
    ("part", "words"),
    [
        ({"type": "integer", "minimum": 0, "maximum": 65535}, "integer, 0 to 65,535"),
        ({"type": "integer", "minimum": 0, "maximum": 2**53}, "integer, from 0"),
        ({"type": "number", "exclusiveMinimum": 0, "maximum": 0.5}, "number, above 0, at most 0.5"),
        ({"anyOf": [{"type": "null"}, {"type": "boolean"}]}, "true, false"),
        ({"enum": ["a", None, "b"]}, "`a`, `b`"),
        ({"type": "array", "items": {"type": "string"}}, "list of text"),
        ({"type": "object", "additionalProperties": {"type": "string", "format": "path"}}, "map of path"),
        ({"$ref": "#/$defs/Limits"}, "[Limits](#limits)"),
        ({"type": "string", "pattern": "^(a|b)$"}, "text like `^(a\\|b)$`"),
        ({}, "anything"),
    ],
)
def test_a_schema_in_words(part: dict[str, Any], words: str) -> None:
    assert kind_of(part) == words


@pytest.mark.parametrize(
    ("default", "words"),
    [(None, "none"), ("", "none"), (False, "`false`"), (2.0, "`2`"), ((), "empty"), ([1], "`[1]`")],
)
def test_a_default_in_words(default: object, words: str) -> None:
    assert default_in_words(default) == words


def test_the_command_writes_and_then_names_what_differs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main([str(tmp_path / "new"), "--write"]) == 0
    assert command.main([str(tmp_path / "new")]) == 0
    (tmp_path / "new" / "cli.md").write_text("something else")
    (tmp_path / "new" / "metrics.md").unlink()
    assert command.main([str(tmp_path / "new")]) == 1
    assert "cli.md, metrics.md; run `make reference`" in capsys.readouterr().err


def test_every_command_that_the_documents_print_exists(made: dict[str, str]) -> None:
    """A command in a code block of ours is one that the command line has, with options that it has."""
    known = dict.fromkeys(commands(typer.main.get_command(app)))
    groups = {name.rsplit(" ", 1)[0] for name in known} | {"tradewind"}
    written = [DOCS / p for p in DOCS.glob("*.md")] + [
        REPO / n for n in ("README.md", "CONTRIBUTING.md", "SECURITY.md")
    ]
    for page in written:
        for line in told(page.read_text("utf-8")):
            words = line.split()
            name = next((n for n in (" ".join(words[:3]), " ".join(words[:2])) if n in known), None)
            assert name or " ".join(words[:2]) in groups or words[1:2] == ["--version"], f"{page.name}: {line}"
            if name:
                its_own = part_of(made["cli.md"], name)
                for option in re.findall(r"(?<!\S)--[a-z-]+", line.partition("|")[0]):
                    assert option in its_own or option == "--help", f"{page.name}: {line}: {option}"


def test_every_metric_that_the_documents_print_exists(made: dict[str, str]) -> None:
    known = set(re.findall(r"`(tradewind_\w+)`", made["metrics.md"]))
    for page in DOCS.glob("*.md"):
        assert set(re.findall(r"tradewind_(?!classes)\w+", page.read_text("utf-8"))) <= known, page.name


def test_every_make_target_that_the_documents_print_exists() -> None:
    targets = set(re.findall(r"^([a-z]+):", (REPO / "Makefile").read_text("utf-8"), re.M))
    for page in [*DOCS.glob("*.md"), *(REPO / name for name in ("README.md", "CONTRIBUTING.md"))]:
        text = page.read_text("utf-8")
        for named in re.findall(r"(?:^|`)make ((?:[a-z]+ ?)+)", text, re.M):
            assert set(named.split()) <= targets, (page.name, named)


def told(text: str) -> list[str]:
    """Calls of the command in code blocks and code spans of Markdown."""
    blocks = re.findall(r"```(?:sh|console)\n(.*?)```", text, re.S) + re.findall(r"`([^`\n]+)`", text)
    lines = [line.strip() for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    calls = (re.sub(r"^(\$ )?(\.venv/bin/)?", "", line).partition("  #")[0] for line in lines)
    return [call for call in calls if re.match(r"tradewind [a-z-]", call)]


def part_of(page: str, name: str) -> str:
    """The part of the page of the command line that is about one command."""
    found = re.search(rf"^##+ {name}\n(.*?)(?=^##+ |\Z)", page, re.M | re.S)
    assert found is not None
    return found[1]


def test_links_of_the_pages_outside_the_site_lead_to_files() -> None:
    for name in ("README.md", "CONTRIBUTING.md", "ARCHITECTURE.md", "SECURITY.md"):
        for target in re.findall(r"\]\(([^)#]+)[^)]*\)", (REPO / name).read_text("utf-8")):
            assert target.startswith("https://") or (REPO / target).exists(), (name, target)


def test_the_site_loads_nothing_from_elsewhere() -> None:
    said = (REPO / "mkdocs.yml").read_text("utf-8")
    assert "font: false" in said
    assert not re.search(r"https?://", said)
    for picture in (DOCS / "img").glob("*.svg"):
        assert set(re.findall(r"https?://[^\"' ]+", picture.read_text("utf-8"))) == {"http://www.w3.org/2000/svg"}


def test_the_site_builds_without_a_warning_and_its_pages_load_nothing_from_elsewhere(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "-d", str(tmp_path)]
    built = subprocess.run(command, cwd=REPO, capture_output=True, text=True, timeout=60)
    assert built.returncode == 0, built.stderr
    pages = list(tmp_path.rglob("*.html"))
    assert len(pages) > 20
    for page in pages:
        loaded = re.findall(r"<(?:script|img|link|iframe)[^>]*?(?:src|href)=\"?(\S+)", page.read_text("utf-8"))
        assert [one for one in loaded if one.startswith(("http", "//"))] == [], page


def test_the_schema_that_topics_link_to_is_there() -> None:
    assert json.loads((DOCS / "reference/contract/asyncapi.json").read_text("utf-8"))["asyncapi"].startswith("3.")
