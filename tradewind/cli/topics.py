"""`tradewind topics` and `tradewind fleet`: what has to be on Kafka before anything runs."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from streams.contract.errors import BadSetting, Stop
from streams.contract.rights import ROLE
from tradewind.cli.options import AsJson, Bootstrap, Config, Prefix, settled, warn

FORMATS = ("table", "kafka-acls", "kafka-topics")
app = typer.Typer(no_args_is_help=True, help="Make and check the topics; say which rights each role needs.")
fleet_app = typer.Typer(no_args_is_help=True, help="Check and publish the fleet.")


@app.command()
def create(
    config: Config = None, bootstrap_servers: Bootstrap = None, topic_prefix: Prefix = None, as_json: AsJson = False
) -> None:
    """Make the topics that are missing. What exists is never altered; what exists and means something else is an error.

    Example: tradewind topics create --bootstrap-servers kafka:9092
    """
    from streams.runtime import admin

    settings = settled(config, bootstrap_servers=bootstrap_servers, topic_prefix=topic_prefix)
    _hush()
    made = asyncio.run(admin.create(settings))
    if as_json:
        print(msgspec.json.encode({"created": made}).decode())
    else:
        print("\n".join(f"created {name}" for name in made) or "all topics are there")


@app.command()
def check(
    config: Config = None, bootstrap_servers: Bootstrap = None, topic_prefix: Prefix = None, as_json: AsJson = False
) -> None:
    """Compare the topics with what the contract declares. Exit status 1 when anything differs.

    Example: tradewind topics check --json | jq '.differences[].topic'
    """
    from streams.runtime import admin

    settings = settled(config, bootstrap_servers=bootstrap_servers, topic_prefix=topic_prefix)
    _hush()
    found = asyncio.run(admin.check(settings, role="admin"))
    if as_json:
        print(msgspec.json.encode({"differences": [d._asdict() for d in found]}).decode())
    else:
        print("\n".join(map(str, found)) or "all topics are as declared")
    raise typer.Exit(1 if found else 0)


@app.command()
def plan(
    role: Annotated[str | None, typer.Option(help=f"Only this one of {', '.join(ROLE)}.")] = None,
    principal: Annotated[
        str | None, typer.Option(metavar="User:NAME", help="Who runs it; else a user called like the role.")
    ] = None,
    form: Annotated[
        str, typer.Option("--format", help="table; kafka-acls or kafka-topics: lines for a shell.")
    ] = "table",
    config: Config = None,
    bootstrap_servers: Bootstrap = None,
    topic_prefix: Prefix = None,
    as_json: AsJson = False,
) -> None:
    """Print the topics with their settings and the least rights of each role. Kafka is not asked.

    Examples:
      tradewind topics plan
      tradewind topics plan --role gateway --principal User:gw-europe --format kafka-acls
      tradewind topics plan --format kafka-topics
      tradewind topics plan --json | jq -r '.roles[] | select(.role == "router").kafka_acls[]'
    """
    from tradewind.cli import plan as plans

    if role is not None and role not in ROLE:
        raise BadSetting("flag", "--role", role, f"Choose one of {', '.join(ROLE)}")
    if form not in FORMATS:
        raise BadSetting("flag", "--format", form, f"Choose one of {', '.join(FORMATS)}")
    if principal is not None and not principal.startswith("User:"):
        raise BadSetting("flag", "--principal", principal, "Write it as Kafka does: User:NAME")
    settings = settled(config, bootstrap_servers=bootstrap_servers, topic_prefix=topic_prefix)
    roles = plans.roles_of(role)
    if as_json:
        print(msgspec.json.encode(plans.as_object(settings, roles, principal)).decode())
    elif form == "kafka-topics":
        print(plans.as_topic_commands(settings))
    else:
        print((plans.as_commands if form == "kafka-acls" else plans.as_tables)(settings, roles, principal))


@fleet_app.command("check")
def check_fleet(file: Annotated[Path, typer.Argument(help="tradewind.yaml")], as_json: AsJson = False) -> None:
    """Say all that is wrong with a fleet file: line, field, value, and what would be right.

    Example: tradewind fleet check examples/tradewind.yaml
    """
    from router_sync.fleet import BadFleet, read_file
    from tradewind.fleets import value_of

    try:
        fleet, cautions = read_file(file)
        value_of(fleet)
    except Stop as bad:
        if not as_json:
            raise
        problems = bad.problems if isinstance(bad, BadFleet) else [bad]
        print(msgspec.json.encode({"problems": [str(problem) for problem in problems]}).decode())
        raise typer.Exit(1) from None
    counts = {"endpoints": len(fleet.endpoints), "services": len(fleet.services), "origins": len(fleet.origins)}
    said = ", ".join(f"{count} {name}" for name, count in counts.items())
    if as_json:
        print(msgspec.json.encode({"problems": [], "warnings": list(map(str, cautions)), **counts}).decode())
    else:
        warn(cautions)
        print(f"{file} is good: {said}")


@fleet_app.command()
def publish(
    file: Annotated[Path, typer.Argument(help="tradewind.yaml")],
    config: Config = None,
    bootstrap_servers: Bootstrap = None,
    topic_prefix: Prefix = None,
) -> None:
    """Check a fleet file and put it on the fleet topic; workers take it over without a restart.

    Example: tradewind fleet publish tradewind.yaml
    """
    from router_sync.fleet import read_file
    from streams.runtime import clock
    from tradewind.fleets import publish as send

    fleet, cautions = read_file(file)
    warn(cautions)
    logging.getLogger("tradewind").addHandler(logging.NullHandler())  # the same as events: it was just said
    if fleet.version == 0:
        fleet = msgspec.structs.replace(fleet, version=int(clock.now_s()))
    settings = settled(config, bootstrap_servers=bootstrap_servers, topic_prefix=topic_prefix)
    _hush()
    asyncio.run(send(fleet, settings))
    print(f"published fleet {fleet.fleet}, version {fleet.version}")


def _hush() -> None:
    """That Kafka is away is said by us, once."""
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)
