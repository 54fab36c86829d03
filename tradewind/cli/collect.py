"""`tradewind collect`: read outside, say on topics."""

from __future__ import annotations

import asyncio
import signal
from typing import TYPE_CHECKING, Annotated, Literal

import msgspec
import typer

from streams import signals
from streams.runtime import clock
from tradewind.cli.drain import ordered_where
from tradewind.cli.options import AsJson, Bootstrap, Config, Prefix

if TYPE_CHECKING:
    from streams.collectors.interruptions import Agent
    from streams.contract.records import Interruption

app = typer.Typer(no_args_is_help=True, help="Read what is said outside, and say it on topics.")


@app.callback()
def _group() -> None:
    """Collectors by what they read."""


@app.command("interruptions")
def interruptions(
    provider: Annotated[
        Literal["aws", "azure", "gcp"], typer.Option("--provider", help="Whose machine this is, and is asked.")
    ],
    endpoint: Annotated[str, typer.Option("--endpoint", help="The endpoint that this machine carries.")],
    replicas: Annotated[
        int | None,
        typer.Option("--replicas", min=1, max=100_000, help="How many of its replicas run here. [default: all]"),
    ] = None,
    metadata_url: Annotated[
        str | None, typer.Option("--metadata-url", metavar="URL", help="Another metadata service than the provider's.")
    ] = None,
    once: Annotated[bool, typer.Option("--once", help="Ask once, say what is coming, and end.")] = False,
    config: Config = None,
    bootstrap_servers: Bootstrap = None,
    topic_prefix: Prefix = None,
    as_json: AsJson = False,
) -> None:
    """Ask this machine's cloud, until SIGTERM, whether it is about to be interrupted; say each notice once, at once.

    Run it beside the endpoint, one a machine. It asks every second (AWS: every five), and goes on while the metadata
    service or Kafka is away. Exit status 1 with --once: the metadata service gave no answer.

    Examples:
      tradewind collect interruptions --provider aws --endpoint eu-west-spot-a
      tradewind collect interruptions --provider gcp --endpoint us-spot --replicas 1
      tradewind collect interruptions --provider azure --endpoint eu-spot --once --json
    """
    from streams.collectors.interruptions import PROVIDERS, Agent
    from tradewind.hands import kafka, saying

    settings = ordered_where(config, bootstrap_servers, topic_prefix)
    signals.log_to(None, "collector", settings.log_level)
    kafka.hush()

    async def say(said: Interruption) -> None:
        await saying.say(settings, said, clock.now_s())

    source = PROVIDERS[provider](**({} if metadata_url is None else {"url": metadata_url}))
    agent = Agent(source, endpoint, replicas, say, clock.now_s)
    if once:
        _tell(asyncio.run(agent.once()), as_json=as_json)
    else:
        asyncio.run(_until_stopped(agent))


async def _until_stopped(agent: Agent) -> None:
    task = asyncio.ensure_future(agent.run())
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, task.cancel)
    signals.event("collector_asks", url=agent.provider.url, every_s=agent.provider.every_s)
    await asyncio.wait([task])
    if not task.cancelled():
        task.result()


def _tell(said: list[Interruption] | None, *, as_json: bool) -> None:
    from router_sync.notices import words

    if as_json:
        print(msgspec.json.encode({"answered": said is not None, "said": said or []}).decode())
    elif said:
        print("\n".join(words(one, clock.now_s()) for one in said))
    else:
        print("nothing is coming" if said is not None else "the metadata service gave no answer")
    raise typer.Exit(0 if said is not None else 1)
