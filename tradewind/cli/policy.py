"""`tradewind policy`: law and wishes checked, explained, tried; nothing is asked of Kafka."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import typer

from streams.contract.errors import BadSetting
from tradewind.cli.options import AsJson, warn

if TYPE_CHECKING:
    from router_sync.reading import Caution
    from streams.contract.records import Fleet

app = typer.Typer(no_args_is_help=True, help="Check, explain and try rules of law and preference.")
FleetFile = Annotated[
    Path | None,
    typer.Argument(exists=True, dir_okay=False, metavar="[FILE]", help="Else TRADEWIND_CONFIG, else the one here."),
]


@app.command()
def check(
    file: Annotated[
        Path | None,
        typer.Argument(
            exists=True, dir_okay=False, metavar="[FILE]", help="A policy, or a tradewind.yaml; else the one here."
        ),
    ] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Fail on warnings too.")] = False,
    as_json: AsJson = False,
) -> None:
    """Say all that is wrong with policies: line, field, value, and what would be right. Exit status 1 if anything is.

    Of a tradewind.yaml, its fleet is looked at too: a rule that reaches nothing and an endpoint that nothing reaches
    are warnings; a class to which law leaves no endpoint is a problem.

    Examples:
      tradewind policy check
      tradewind policy check ours.yaml
      tradewind policy check --strict --json | jq '.warnings[].remedy'
    """
    from router_sync.reading import BadFleet

    try:
        good, cautions = _checked(file)
    except BadFleet as bad:
        if not as_json:
            raise
        _print({"good": False, "problems": [problem.told() for problem in bad.problems], "warnings": []})
        raise typer.Exit(1) from None
    if as_json:
        _print({"good": True, "problems": [], "warnings": [caution.told() for caution in cautions]})
    else:
        warn(cautions)
        print(good)
    raise typer.Exit(1 if strict and cautions else 0)


def _checked(file: Path | None) -> tuple[str, list[Caution]]:
    """What is good, in words, and what is likely not meant. Raises BadFleet."""
    from router_sync.policy.file import BEGIN, load
    from router_sync.reading import BEGIN as BEGIN_FLEET
    from router_sync.reading import text_of, tree_of

    path = _file(file)
    if "rules" in tree_of(text_of(path), str(path), f"{BEGIN}; or with {BEGIN_FLEET}"):
        policy = load(path.name, path.parent)
        return f"{path} is good: the policy {policy.name}, {_count(len(policy.rules), 'rule')}", []
    fleet, cautions = _fleet(path)
    rules = sum(len(policy.rules) for policy in fleet.policies)
    said = f"{_count(len(fleet.policies), 'policy', 'policies')}, {_count(rules, 'rule')}"
    return f"{path} is good: {said} over {_count(len(fleet.endpoints), 'endpoint')}", cautions


@app.command()
def explain(
    file: FleetFile = None,
    service: Annotated[str | None, typer.Option(help="Only this one.")] = None,
    class_: Annotated[str | None, typer.Option("--class", help="Only this one.")] = None,
    origin: Annotated[str | None, typer.Option(help="Only requests from there.")] = None,
    endpoint: Annotated[str | None, typer.Option(help="Only this one.")] = None,
    as_json: AsJson = False,
) -> None:
    """Tell, endpoint by endpoint, whether requests may go there, which rules deny it and why, and what is wished for.

    Examples:
      tradewind policy explain --service chat --class interactive --origin eu
      tradewind policy explain tradewind.yaml --endpoint us-east-a
      tradewind policy explain --json | jq '.flows[].endpoints[] | select(.allowed | not)'
    """
    from router_sync.policy import telling

    fleet, _ = _fleet(_file(file))
    which = telling.Which(service, class_, origin, endpoint)
    _known(fleet, which)
    flows = list(telling.told(fleet, which))
    if as_json:
        _print(telling.as_object(flows))
    else:
        print("\n\n".join(map(telling.as_text, flows)))


def _known(fleet: Fleet, which: Any) -> None:
    """Raises BadSetting for a name that is not of the fleet."""
    classes = (class_ for service in fleet.services for class_ in service.classes)
    for flag, name, items in (
        ("--service", which.service, fleet.services),
        ("--class", which.class_, classes),
        ("--origin", which.origin, fleet.origins),
        ("--endpoint", which.endpoint, fleet.endpoints),
    ):
        names = list(dict.fromkeys(item.name for item in items))
        if name is not None and name not in names:
            raise BadSetting("flag", flag, name, f"Name one of {', '.join(names[:20])}")
    if not any(which.takes((s.name, o.name, c.name)) for s in fleet.services for o in fleet.origins for c in s.classes):
        raise BadSetting("flag", "--class", which.class_, f"The service {which.service} has no such class")


@app.command("test")
def try_cases(
    file: Annotated[str, typer.Argument(metavar="FILE", help="Cases, a policy with cases, or a shipped one's name.")],
    as_json: AsJson = False,
) -> None:
    """Try the cases in a file: what is expected of a request and a target, by which rule. Exit status 1 if one fails.

    Examples:
      tradewind policy test ours.yaml
      tradewind policy test gdpr
      tradewind policy test cases.yaml --json | jq '.failed'
    """
    from router_sync.policy.cases import load, tried
    from router_sync.policy.file import SHIPPED, path_of, shipped

    path = Path(file) if Path(file).is_file() else path_of(file, Path())
    if path.parent == SHIPPED and file not in shipped():
        raise BadSetting("argument", "FILE", file, f"Name a file, or one of {', '.join(shipped())}")
    outcomes = list(tried(load(path)))
    failed = [outcome for outcome in outcomes if outcome.said]
    if as_json:
        _print({"cases": len(outcomes), "failed": [outcome._asdict() for outcome in failed]})
    else:
        for outcome in failed:
            print(f"{outcome.where}: {outcome.name}: {outcome.said}")
        print(f"{_count(len(outcomes), 'case')}, {len(failed) or 'none'} failed")
    raise typer.Exit(1 if failed else 0)


@app.command()
def show(
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="A shipped policy; else all are listed.")] = None,
    as_json: AsJson = False,
) -> None:
    """Print a policy that comes with Tradewind, to be named in `policies:` or copied; without a name, list them.

    Examples:
      tradewind policy show
      tradewind policy show gdpr > ours.yaml
    """
    from router_sync.policy.file import load, path_of, shipped

    if name is not None and name not in shipped():
        raise BadSetting("argument", "NAME", name, f"Name one of {', '.join(shipped())}")
    if name is None:
        said = {one: _about(path_of(one, Path())) for one in shipped()}
        print(msgspec.json.encode(said).decode() if as_json else "\n".join(_columns(said)))
    elif as_json:
        _print(load(name))
    else:
        sys.stdout.write(path_of(name, Path()).read_text("utf-8"))


def _about(path: Path) -> str:
    """The first line of its comment."""
    return path.read_text("utf-8").partition("\n")[0].lstrip("# ")


def _columns(said: dict[str, str]) -> Iterator[str]:
    wide = max(map(len, said))
    return (f"{name:{wide}}  {about}" for name, about in said.items())


def _file(file: Path | None) -> Path:
    from tradewind.config.sources import FILE, file_of

    return file_of(file) or FILE


def _fleet(path: Path) -> tuple[Fleet, list[Caution]]:
    from router_sync.fleet import read_file

    return read_file(path)


def _count(count: int, one: str, many: str = "") -> str:
    return f"{count} {one if count == 1 else many or one + 's'}"


def _print(said: object) -> None:
    print(msgspec.json.encode(said).decode())
