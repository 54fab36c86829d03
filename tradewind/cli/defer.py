"""`tradewind defer`: work that may wait for a cheaper or greener hour."""

from __future__ import annotations

import asyncio
import uuid
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer

from streams.contract.errors import BadSetting
from streams.runtime import clock
from tradewind.cli.drain import ordered_where
from tradewind.cli.options import AsJson, Bootstrap, Config, Prefix, settled

if TYPE_CHECKING:
    from streams.contract.records import Fleet
    from streams.settings import Settings
    from tradewind.hands.deferred import Job

app = typer.Typer(no_args_is_help=True, help="Hand in work that may wait for a cheaper or greener hour.")


@app.command()
def submit(
    service: Annotated[str, typer.Argument(help="A service of the fleet.")],
    requests: Annotated[int, typer.Option(min=1, max=10**12, help="How many there are.")],
    within: Annotated[str, typer.Option(metavar="TIME", help="All have to be through by then, as in 6h or 2d.")],
    class_: Annotated[
        str | None, typer.Option("--class", help="A class that may wait (`defer_s`); else the only one.")
    ] = None,
    origin: Annotated[str | None, typer.Option(help="Where they come from; else the only origin.")] = None,
    job: Annotated[str | None, typer.Option("--job", help="Its name; else one is made up.")] = None,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="For the plan, ten seconds at most.")] = True,
    config: Config = None,
    bootstrap_servers: Bootstrap = None,
    topic_prefix: Prefix = None,
    as_json: AsJson = False,
) -> None:
    """Hand in work, and be told when it should run. The word to begin comes on releases.v1 when its time has come.

    Examples:
      tradewind defer submit chat --class batch --requests 200000 --within 6h
      tradewind defer submit chat --requests 5000 --within 1d --job nightly-0042 --json
    """
    from tradewind.hands.text import duration_s

    within_s = duration_s("--within", within)
    name = job or f"{service[:80]}-{uuid.uuid4().hex[:8]}"
    settings = ordered_where(config, bootstrap_servers, topic_prefix)
    found = asyncio.run(_submitted(settings, service, class_, origin, within_s, name, requests, wait=wait))
    _tell(found, as_json=as_json)


async def _submitted(
    settings: Settings,
    service: str,
    class_: str | None,
    origin: str | None,
    within_s: float,
    name: str,
    requests: int,
    *,
    wait: bool,
) -> Job:
    from tradewind.hands import deferred, kafka

    kafka.hush()
    fleet = await _fleet(settings)
    now_s = clock.now_s()
    try:
        job = deferred.wanted(fleet, service, class_, origin, within_s, now_s, job=name, requests=requests)
        msgspec.convert(msgspec.to_builtins(job), type(job))  # a name has letters that may be in one
    except msgspec.ValidationError as error:
        raise BadSetting("flag", "--job", name, str(error)) from None
    return await deferred.submit(settings, job, clock.now_s, wait)


async def _fleet(settings: Settings) -> Fleet:
    from tradewind.hands import facts, kafka

    async with kafka.reader(settings) as consumer:
        return await facts.fleet(consumer, settings)


def _tell(found: Job, *, as_json: bool) -> None:
    if as_json:
        print(msgspec.json.encode(found).decode())
        return
    from tradewind.hands import deferred
    from tradewind.hands.text import at

    job, word = found.job, found.word
    print(f"{job.job}: {job.requests} requests of {job.service}/{job.class_} from {job.origin}, through by "
          f"{at(job.deadline_at_s)}")  # fmt: skip
    print(f"  {deferred.when(found, clock.now_s())}{f': {word.reason}' if word and word.reason else ''}")
    if word is not None and word.usd_per_request:
        print(f"  {deferred.dollars(word)} $ per million requests")


@app.command("list")
def list_(
    service: Annotated[str | None, typer.Option("--service", help="Only of this service.")] = None,
    every: Annotated[bool, typer.Option("--all", help="Released ones too, of the last 30 days.")] = False,
    config: Config = None,
    bootstrap_servers: Bootstrap = None,
    topic_prefix: Prefix = None,
    as_json: AsJson = False,
) -> None:
    """List what waits, the most pressing first: when it should run, and what that saves.

    Examples:
      tradewind defer list
      tradewind defer list --all --json | jq '.jobs[] | [.job.job, .state, .word.release_at_s]'
    """
    from tradewind.hands import deferred
    from tradewind.hands.text import columns

    settings = settled(config, bootstrap_servers=bootstrap_servers, topic_prefix=topic_prefix)
    found = [
        one
        for one in asyncio.run(_jobs(settings))
        if service in (None, one.job.service) and (every or one.state != "released")
    ]
    if as_json:
        print(msgspec.json.encode({"jobs": found}).decode())
        return
    print("\n".join(columns(deferred.rows(found, clock.now_s()))) if found else "nothing waits")


async def _jobs(settings: Settings) -> list[Job]:
    from tradewind.hands import deferred, kafka

    kafka.hush()
    async with kafka.reader(settings) as consumer:
        return await deferred.jobs(consumer, settings)


@app.command()
def cancel(
    job: Annotated[str, typer.Argument(help="As `list` says it.")],
    config: Config = None,
    bootstrap_servers: Bootstrap = None,
    topic_prefix: Prefix = None,
    as_json: AsJson = False,
) -> None:
    """Take a job back before it is released.

    Examples:
      tradewind defer cancel nightly-0042
      tradewind defer cancel nightly-0042 --json
    """
    from tradewind.hands import deferred, kafka

    settings = ordered_where(config, bootstrap_servers, topic_prefix)
    kafka.hush()
    found = asyncio.run(deferred.cancel(settings, job))
    if as_json:
        print(msgspec.json.encode({"cancelled": found.job}).decode())
    else:
        print(f"{found.job.job} is taken back")
