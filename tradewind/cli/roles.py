"""`tradewind worker` and `tradewind gateway`: one role each, as in production."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from streams import signals
from streams.contract.errors import BadSetting
from streams.settings import load
from tradewind.cli.options import Bootstrap, Prefix

ROOMS = ("streams", "router")


def worker(
    room: Annotated[str, typer.Argument(help=f"One of {', '.join(ROOMS)}.")],
    port: Annotated[int, typer.Option(min=0, max=65535, help="Of /metrics, /healthz and /readyz.")] = 9464,
    key: Annotated[
        Path | None, typer.Option(help="The router's signing key, made on first use. [default: STATE_DIR/router.key]")
    ] = None,
    bootstrap_servers: Bootstrap = None,
    topic_prefix: Prefix = None,
) -> None:
    """Run a worker of one room until SIGTERM. Start as many as there are partitions; they share the work.

    Example: tradewind worker streams --bootstrap-servers kafka:9092
    """
    if room not in ROOMS:
        raise BadSetting("argument", "ROOM", room, f"Choose one of {', '.join(ROOMS)}")
    from streams.runtime.worker import run_worker

    settings = load(bootstrap_servers=bootstrap_servers, topic_prefix=topic_prefix)
    if room == "streams":
        import streams.flow

        steps = streams.flow.steps(settings)
    else:
        import router_sync.flow
        from router_sync.keys import load_or_make

        steps = router_sync.flow.steps(settings, load_or_make(key or settings.state_dir / "router.key"))
    sys.exit(run_worker(steps, settings, room, port))


def gateway(
    origin: Annotated[str, typer.Option(help="Where this gateway's callers are: an origin of the fleet.")],
    trust: Annotated[list[Path], typer.Option(exists=True, help="The router's public key; twice while keys change.")],
    name: Annotated[str, typer.Option(help="Unique among gateways.")] = "gateway-1",
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one.")] = 8080,
    reuse_port: Annotated[bool, typer.Option("--reuse-port", help="Several gateway processes share the port.")] = False,
    keys: Annotated[Path | None, typer.Option(exists=True, help="Who may call, as what: API keys and classes.")] = None,
    anonymous: Annotated[bool, typer.Option("--anonymous", help="Serve callers without a key.")] = False,
    table_file: Annotated[Path | None, typer.Option(help="Follow a file instead of the topic.")] = None,
    bootstrap_servers: Bootstrap = None,
    topic_prefix: Prefix = None,
) -> None:
    """Run a gateway until SIGTERM: it follows signed tables, forwards requests, and reports what it sees.

    Example: tradewind gateway --origin europe --trust .tradewind/router.key.pub --anonymous
    """
    from router_sync.gateway import checked, run

    settings = load(bootstrap_servers=bootstrap_servers, topic_prefix=topic_prefix)
    signals.log_to(None, name, settings.log_level)
    config = checked(
        "flags",
        {
            "name": name, "origin": origin, "host": host, "port": port, "reuse_port": reuse_port, "trust": trust,
            "keys": keys, "anonymous": anonymous, "table_file": table_file,
            "bootstrap_servers": settings.bootstrap_servers, "prefix": settings.topic_prefix,
            "state_dir": settings.state_dir / name,
        },
    )  # fmt: skip
    run(config)


def flow() -> None:
    """Show the map: every step, what it reads, what it writes, how often it speaks."""
    from tradewind.flow import lines

    print("\n".join(lines(load())))
