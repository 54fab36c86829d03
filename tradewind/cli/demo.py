"""`tradewind demo` and `tradewind fault`."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import typer

from streams.contract.errors import BadSetting, Missing
from streams.settings import environment, load
from tradewind.cli.options import AsJson, Prefix

if TYPE_CHECKING:
    from tradewind.demo.play import Play
    from tradewind.demo.report import Report
    from tradewind.embedded import Runtime

KINDS = ("dead", "refusing", "slow", "hanging", "breaking", "none")
DATA = Path(".tradewind/demo")
REVIVE = "Press the number of the region in the demo's terminal to start its dead endpoints, or start the demo again"


def demo(
    scenario: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="What is played: loop, sovereign (law, tiers, an edge site), spot (machines taken back) or "
            "surge (capacity planned and launched).",
        ),
    ] = "loop",
    seconds: Annotated[float | None, typer.Option(min=5, max=86400, help="End then. [default: at Ctrl-C]")] = None,
    outage: Annotated[
        str | None, typer.Option(metavar="REGION@S[-S]", help="Kill a region's endpoints then, as in eu-west@45-65.")
    ] = None,
    broker_outage: Annotated[
        float | None, typer.Option(metavar="S", min=0, help="kill -9 the embedded broker then, and start it again.")
    ] = None,
    surge: Annotated[
        str,
        typer.Option(
            metavar="FACTORx@S[-S]", help="More load from then on, as in 3x@30-60. [default: 10x@30 in surge]"
        ),
    ] = "",
    spot_notice: Annotated[
        float | None,
        typer.Option(metavar="S", min=0, max=3600, help="Notice that spot machines get, in seconds. [default: 30]"),
    ] = None,
    cold_start: Annotated[
        float | None,
        typer.Option(
            metavar="S",
            min=1,
            max=600,
            help="From the launch of a replica until it serves, in the scenario surge. [default: 20]",
        ),
    ] = None,
    rps: Annotated[
        float | None,
        typer.Option(
            min=0.1, max=1000, help="Mean requests per second over all origins. [default: the scenario's, 24]"
        ),
    ] = None,
    trace: Annotated[
        Path | None, typer.Option(exists=True, dir_okay=False, help="Arrivals to replay. [default: a bundled sample]")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of arrivals, classes and the endpoints' noise.")] = 1,
    bootstrap_servers: Annotated[
        str | None, typer.Option(metavar="HOST:PORT", help="Use this Kafka instead of an embedded one.")
    ] = None,
    topic_prefix: Prefix = None,
    data: Annotated[
        Path, typer.Option(help="Folder of this run: broker data, logs, keys. Empty, or of a demo: it is emptied.")
    ] = DATA,
    keep: Annotated[bool, typer.Option("--keep", help="Start from what the folder holds.")] = False,
    as_json: AsJson = False,
) -> None:
    """Run the whole loop here: a real Kafka, workers, gateways, HTTP endpoints in three regions, recorded arrivals.

    On a Kafka of yours the topics get a prefix of the run's own, and are deleted at its end, unless one is given.
    A process that dies is started again, five times a minute at most. The exit status is 1 when the run ended before
    its time or its outcomes could not be kept; the report is printed all the same.

    Of the scenario surge it says besides: admitted_in_slo, of the requests let in from the surge, a cold start and ten
    seconds (an interval of the planner) on, the share that came whole within the SLO of its class; shed_by_tier, before
    that and after; plans made and carried out, seconds from the surge to the first (first_after_s), and until capacity
    for it was ready (ready_after_s), and how long before it was due (early_s); replicas over time.

    Examples:
      tradewind demo
      tradewind demo --seconds 90 --outage eu-west@45 --json
      tradewind demo --scenario sovereign --seconds 90 --surge 3x@30
      tradewind demo --scenario spot --spot-notice 30 --seconds 120
      tradewind demo --scenario surge --surge 10x@30 --cold-start 20 --seconds 120
      tradewind demo --bootstrap-servers localhost:9092
    """
    from tradewind.demo.options import Options
    from tradewind.demo.report import told

    options = Options(
        scenario=scenario, seconds=seconds, outage=outage, broker_outage_at_s=broker_outage, surge=surge,
        spot_notice_s=spot_notice, cold_start_s=cold_start, rps=rps, trace=trace, seed=seed, as_json=as_json,
        bootstrap_servers=bootstrap_servers, topic_prefix=topic_prefix, data=data, keep=keep,
    )  # fmt: skip
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)  # that the broker is away is said by us, once
    logging.getLogger("tradewind").addHandler(logging.NullHandler())  # what people need to hear is said
    play = _play(options)
    report = asyncio.run(_until_stopped(play))
    if not as_json:
        print(f"logs of this run: {data / 'log'}", file=sys.stderr)
    troubles = [
        play.unkept,
        report.ended_early,
        _printed(msgspec.json.encode(report.fields()).decode() if as_json else told(report)),
    ]
    for trouble in filter(None, troubles):
        print(f"tradewind: {trouble}", file=sys.stderr)
    if any(troubles):
        raise typer.Exit(1)


def _play(options: Any) -> Play:
    from tradewind.demo.play import Play

    settings = load(bootstrap_servers=options.bootstrap_servers, topic_prefix=options.topic_prefix)
    environ = environment()
    runtime = None if options.bootstrap_servers else _runtime(environ)
    try:
        return Play(options, settings, runtime, environ)
    except ValueError as error:
        raise BadSetting("flag", "--trace or --surge", str(options.trace or options.surge), str(error)) from None


def _runtime(environ: Any) -> Runtime:
    try:
        from tradewind.embedded import default_cache, prepare, shown_on
    except ImportError as error:
        raise Missing(
            f"The embedded Kafka needs the package {error.name}",
            "Install it with `pip install 'tradewind[embedded]'`, or use your own: --bootstrap-servers HOST:PORT",
        ) from None
    home = environ.get("JAVA_HOME")
    with shown_on(sys.stderr) as progress:
        return prepare(
            default_cache(environ, Path.home()),
            java_home=Path(home) if home else None,
            search_path=environ.get("PATH"),
            progress=progress,
        )


async def _until_stopped(play: Play) -> Report:
    """The report; SIGINT and SIGTERM end the run early; before it plays, or the second time, at once."""
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    assert task is not None

    def stop() -> None:
        if play.stop.is_set() or not play.playing:
            task.cancel()
        play.stop.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop)
    try:
        return await play.run()
    except asyncio.CancelledError:
        raise typer.Exit(130) from None
    except OSError as error:
        where = error.filename or play.options.data
        raise Missing(
            f"{where} cannot be used ({error.strerror or error})", "Make room, or take another folder: --data DIR"
        ) from None


def _printed(words: str) -> str | None:
    """Why `words` could not be printed on stdout, None if they could; then they are on stderr instead."""
    try:
        print(words, flush=True)
    except BrokenPipeError:
        raise
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python fails once more when it ends
        print(words, file=sys.stderr)
        return f"the report could not be written to stdout ({error.strerror}); it is above"
    return None


def fault(
    region: Annotated[str, typer.Argument(help="A region or an endpoint of the running demo, or 'all'.")],
    kind: Annotated[
        str, typer.Option(help=f"One of {', '.join(KINDS)}; none mends all but dead, see above.")
    ] = "refusing",
    for_s: Annotated[float | None, typer.Option("--for", min=0.1, help="Mend it after so many seconds.")] = None,
    data: Annotated[Path, typer.Option(help="Folder of the running demo.")] = DATA,
) -> None:
    """Break a region of the demo that runs in another terminal, or mend it.

    A dead or killed endpoint hears no order: press the number of its region in the demo's terminal to start it again.

    Examples:
      tradewind fault eu-west --for 20
      tradewind fault us-east-a --kind hanging
      tradewind fault eu-west --kind none
    """
    from tradewind.demo.pretend_fleet import break_region

    if kind not in KINDS:
        raise BadSetting("flag", "--kind", kind, f"Choose one of {', '.join(KINDS)}")
    if kind == "dead" and for_s is not None:
        raise BadSetting("flag", "--for", for_s, f"The dead mend nothing by themselves; leave it out. {REVIVE}")
    order: dict[str, object] = {"kind": kind}
    if for_s is not None:
        order["for_s"] = for_s
    try:
        told = asyncio.run(break_region(data, region, order))
    except FileNotFoundError:
        raise Missing(
            f"No demo runs in {data}", "Start one with `tradewind demo`, or name its folder: --data"
        ) from None
    except LookupError as known:
        raise BadSetting("argument", "REGION", region, f"Choose one of {known}, or an endpoint") from None
    if not told.took:
        raise Missing(f"No endpoint of {region} answered", f"The demo has ended, or they are dead. {REVIVE}")
    if told.silent:
        print(f"no answer: {', '.join(told.silent)}; if dead: {REVIVE}", file=sys.stderr)
    print(f"{kind}: {', '.join(told.took)}")
    if kind == "dead":
        print(REVIVE, file=sys.stderr)
