"""`tradewind init`: a first tradewind.yaml from flags, from a few questions, or as an example."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from streams.contract.errors import BadSetting, Missing

if TYPE_CHECKING:
    from tradewind.config.draft import Origin, Place

T = TypeVar("T")


def init(
    folder: Annotated[Path, typer.Argument(metavar="[DIR]", help="Where tradewind.yaml is written.")] = Path("."),
    service: Annotated[str | None, typer.Option(help="What callers name as `model`. [default: chat]")] = None,
    endpoint: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=URL@REGION/COUNTRY", help="Once for each; with ,price=USD,rps=N,replicas=N as far as known."
        ),
    ] = None,
    origin: Annotated[
        list[str] | None, typer.Option(metavar="NAME/COUNTRY", help="Where callers are; once for each.")
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Ask nothing.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Write over a file that is there.")] = False,
) -> None:
    """Write a commented tradewind.yaml for your endpoints: asks a few questions, or takes flags.

    Examples:
      tradewind init
      tradewind init --service chat --endpoint a=http://10.0.0.1:8000@eu/DE,price=1.2 --origin eu/DE --yes
    """
    from tradewind.config.draft import EXAMPLE, draft, named, parse_endpoint, parse_origin

    file = folder / "tradewind.yaml"
    _refuse_existing(file, force)
    service = named(service, "--service") if service else None
    places, origins = [parse_endpoint(e) for e in endpoint or ()], [parse_origin(o) for o in origin or ()]
    if not yes and _on_terminal():
        service = service or _ask("What do callers name as `model`?", named, "chat")
        places = places or _asked_places()
        origins = origins or [_asked_origin(places)]
    example = not places
    places = places or list(EXAMPLE)
    origins = origins or [_near(places)]
    _write(file, draft(service or "chat", places, origins, example=example))
    if example:
        print("No endpoints were named, so this is an example: put yours in place of its two.", file=sys.stderr)
    print(f"wrote {file}")
    where = "" if folder == Path() else f"{file}"
    print(f"Next:  tradewind up {where}".rstrip(), file=sys.stderr)


def _on_terminal() -> bool:
    return sys.stdin.isatty()


def _refuse_existing(file: Path, force: bool) -> None:
    if file.exists() and not force:
        raise BadSetting(
            "argument", "DIR", str(file), "It is there already: --force writes over it, or name another DIR"
        )


def _write(file: Path, text: str) -> None:
    """What is written can be used: a mistake of ours or of the flags' is told before anything is there."""
    from tradewind.config.whole import parse

    parse(text, file)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, "utf-8")
    except OSError as error:
        raise Missing(
            f"{file} cannot be written ({error.strerror})", "Name a folder of yours: tradewind init DIR"
        ) from None


def _near(places: list[Place]) -> Origin:
    """Callers are taken to be where the first endpoint is, until somebody says otherwise."""
    from tradewind.config.draft import Origin

    return Origin(places[0].region, places[0].country)


# ---------------------------------------------------------------- questions


def _ask(question: str, fit: Callable[[str], T], default: str | None = None) -> T:
    """The first answer that fits; one that does not is told why."""
    while True:
        said = typer.prompt(question, default=default, err=True, show_default=default not in (None, ""))
        try:
            return fit(str(said).strip())
        except BadSetting as bad:
            print(f"  {bad.remedy}", file=sys.stderr)


def _asked_places() -> list[Place]:
    from tradewind.config.draft import Place, address, named, nation, number

    places: list[Place] = []
    print("Your endpoints, one after the other; an empty URL ends the list.", file=sys.stderr)
    while True:
        url = _ask(f"URL of endpoint {len(places) + 1}", lambda said: address(said) if said else "", "")
        if not url:
            return places
        usual = places[-1] if places else None
        places.append(
            Place(
                url=url,
                name=_ask("  its name", _other_than([p.name for p in places], named), f"endpoint-{len(places) + 1}"),
                region=_ask("  region (your word for it)", named, usual.region if usual else "local"),
                country=_ask("  country of that place (two letters)", nation, usual.country if usual else None),
                price_usd_per_h=_ask("  price of a replica, US dollars per hour", lambda s: number(s, 0.0), "1"),
                rps=_ask("  requests per second a replica serves well", lambda s: number(s, 0.001), "20"),
            )
        )


def _other_than(taken: list[str], fit: Callable[[str], str]) -> Callable[[str], str]:
    def fits(said: str) -> str:
        if said in taken:
            raise BadSetting("answer", "name", said, "Another endpoint is called so: names are unique.")
        return fit(said)

    return fits


def _asked_origin(places: list[Place]) -> Origin:
    from tradewind.config.draft import EXAMPLE, Origin, named, nation

    near = _near(places or list(EXAMPLE))
    name = _ask("Where are your callers? A name for that place", named, near.name)
    return Origin(name, _ask("  its country (two letters)", nation, near.country))
