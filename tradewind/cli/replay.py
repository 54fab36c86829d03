"""`tradewind replay`: a scenario lived through in virtual time, by the same stages as on Kafka."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, TextIO

import msgspec
import typer
from rich.console import Console
from rich.progress import BarColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bar

from streams import signals
from streams.contract.errors import BadSetting, Missing
from streams.settings import load
from tradewind.cli.options import AsJson, has_room

if TYPE_CHECKING:
    from tradewind.world.replay import Options, Progress
    from tradewind.world.summary import Summary

EXPECT: Final = ("forecast", "none", "hindsight")
USUAL_MOMENTS: Final = 40


def replay(
    scenario: Annotated[str, typer.Argument(help="A YAML file, or the name of a bundled scenario.")] = "day",
    seed: Annotated[int | None, typer.Option(min=0, max=2**31, help="Of all chance. [default: the file's]")] = None,
    from_: Annotated[str, typer.Option("--from", metavar="TIME", help="Begin there, as in 9h or 9h30m.")] = "",
    to: Annotated[str, typer.Option("--to", metavar="TIME", help="End there. [default: the end]")] = "",
    router: Annotated[str, typer.Option(help="Who decides: tradewind, or a rival to stand beside it.")] = "tradewind",
    expect: Annotated[
        str, typer.Option(help=f"What is expected of demand: {', '.join(EXPECT)} (an oracle tells).")
    ] = "forecast",
    cold_start: Annotated[
        str, typer.Option(metavar="TIME", help="Of every endpoint. [default: as scenario and fleet say]")
    ] = "",
    events: Annotated[
        int | None, typer.Option(min=0, help="So many moments, the most telling. [default: 40; with --json all]")
    ] = None,
    save: Annotated[Path | None, typer.Option(metavar="FILE", help="Write the whole as JSON there, too.")] = None,
    listed: Annotated[bool, typer.Option("--list", help="Name the bundled scenarios and stop.")] = False,
    as_json: AsJson = False,
) -> None:
    """Live through a scenario in virtual time: a day in seconds, no Kafka. Says what moved when and why, then what it
    came to: requests served, late, shed and failed, money, carbon, breaches of law.

    The stages, the signed tables and the picks are those of a real run; endpoints, callers and the clock are pretended.
    Equal seeds give equal results. Settings come from TRADEWIND_ variables. Ctrl-C ends it early, with a report.

    Examples:
      tradewind replay
      tradewind replay outage --events 15
      tradewind replay day --from 9h --to 11h --json | jq .requests
      tradewind replay my-day.yaml --router nearest --save nearest.json
    """
    if listed:
        _list(as_json=as_json)
        return
    options = _options(seed, from_, to, router, expect, cold_start)
    if save is not None:
        has_room(save)
    with _shown_on(sys.stderr) as progress:
        found = _lived(scenario, options, progress)
    _tell(found, events, as_json=as_json)  # first: a disk that is full loses no run
    if save is not None:
        _save(found, save)
    if found.ended_early:
        raise typer.Exit(130)


def _options(seed: int | None, from_: str, to: str, router: str, expect: str, cold_start: str) -> Options:
    from tradewind.hands.text import duration_s
    from tradewind.world.replay import Options

    if expect not in EXPECT:
        raise BadSetting("flag", "--expect", expect, f"Choose one of {', '.join(EXPECT)}")
    return Options(
        router=router,
        expect=expect,  # type: ignore[arg-type]  # it was just looked at
        seed=seed,
        from_s=duration_s("--from", from_) if from_ and from_ != "0s" else 0.0,
        until_s=duration_s("--to", to) if to else None,
        cold_start_s=duration_s("--cold-start", cold_start) if cold_start else None,
    )


def _lived(scenario: str, options: Options, progress: Progress) -> Summary:
    from tradewind.world.reading import find, read
    from tradewind.world.replay import replay as lived

    with signals.unlogged():
        return lived(read(find(scenario)), load(), options, progress)


def _tell(found: Summary, events: int | None, *, as_json: bool) -> None:
    from tradewind.world.summary import cut
    from tradewind.world.text import lines

    if as_json:
        print(msgspec.json.encode(found if events is None else cut(found, events)).decode())
    else:
        print("\n".join(lines(cut(found, USUAL_MOMENTS if events is None else events))))


def _save(found: Summary, path: Path) -> None:
    try:
        path.write_bytes(msgspec.json.encode(found) + b"\n")
    except OSError as error:
        raise Missing(f"{path} cannot be written ({error.strerror})", "Name a file in a folder that is there") from None


def _list(*, as_json: bool) -> None:
    from tradewind.hands.text import columns
    from tradewind.world.reading import BUNDLED, bundled, read

    known = [(name, read(BUNDLED / f"{name}.yaml").scenario) for name in bundled()]
    if as_json:
        said = [{"name": name, "lasts": found.lasts, "says": found.says} for name, found in known]
        print(msgspec.json.encode({"scenarios": said}).decode())
    else:
        print("\n".join(columns([(name, found.lasts, found.says) for name, found in known])))


@contextmanager
def _shown_on(stream: TextIO) -> Iterator[Progress]:
    """How far it is, on a terminal; and Ctrl-C ends the run where it stands, the second time at once."""
    stopped = False

    def stop(*_: object) -> None:
        nonlocal stopped
        stopped = True
        signal.signal(signal.SIGINT, signal.default_int_handler)

    def tell(share: float, at_s: float) -> bool:
        if bar is not None:
            bar.update(task, completed=share, at=f"{datetime.fromtimestamp(at_s, UTC):%H:%M:%S}")
        return not stopped

    before = signal.signal(signal.SIGINT, stop)
    try:
        with ExitStack() as open_:
            bar = open_.enter_context(_bar(stream)) if stream.isatty() else None
            task = bar.add_task("living", total=1.0, at="") if bar is not None else TaskID(0)
            yield tell
    finally:
        signal.signal(signal.SIGINT, before)


def _bar(stream: TextIO) -> Bar:
    columns = TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[at]}"), TimeElapsedColumn()
    return Bar(*columns, console=Console(file=stream), transient=True)
