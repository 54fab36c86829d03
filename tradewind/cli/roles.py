"""`tradewind worker` and `tradewind gateway`: one role each, as in production."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from streams import signals
from streams.contract.errors import BadSetting
from streams.settings import LogLevel, Settings, environment
from tradewind.cli.options import Bootstrap, Config, Prefix, settled

if TYPE_CHECKING:
    from router_sync.gateway import GatewayConfig
    from router_sync.sign import Signer

ROOMS = ("streams", "forecasting", "router", "actuators")
_MOST_KEYS: Final = 4
"""Gateways look at no more signatures than this."""


def worker(
    room: Annotated[str, typer.Argument(help=f"One of {', '.join(ROOMS)}.")],
    port: Annotated[int, typer.Option(min=0, max=65535, help="Of /metrics, /healthz and /readyz.")] = 9464,
    key: Annotated[
        list[Path] | None,
        typer.Option(
            help="A signing key of the router, made on first use; twice while keys change. Else STATE_DIR/router.key."
        ),
    ] = None,
    config: Config = None,
    bootstrap_servers: Bootstrap = None,
    topic_prefix: Prefix = None,
) -> None:
    """Run a worker of one room until SIGTERM. Start as many as there are partitions; they share the work.

    Actuators do as the section `actuators:` of the file says; without it they only say what they would do.

    Examples:
      tradewind worker streams --bootstrap-servers kafka:9092
      tradewind worker router --config /etc/tradewind/tradewind.yaml
      tradewind worker actuators --config /etc/tradewind/tradewind.yaml
    """
    if room not in ROOMS:
        raise BadSetting("argument", "ROOM", room, f"Choose one of {', '.join(ROOMS)}")
    from streams.runtime.worker import run_worker

    settings = settled(config, bootstrap_servers=bootstrap_servers, topic_prefix=topic_prefix)
    if room == "streams":
        import streams.flow

        steps = streams.flow.steps(settings)
    elif room == "forecasting":
        import forecasting.flow
        from tradewind.flow import lawful

        steps = forecasting.flow.steps(settings, lawful)
    elif room == "actuators":
        sys.exit(_actuate(settings, config, port))
    else:
        import router_sync.flow

        signals.log_to(None, room, settings.log_level)
        steps = router_sync.flow.steps(settings, *_signers(key or [settings.state_dir / "router.key"]))
    sys.exit(run_worker(steps, settings, room, port))


def _actuate(settings: Settings, config: Path | None, port: int) -> int:
    """Carry plans out until told to stop. Raises Stop at once for what an actuator lacks."""
    from functools import partial

    import router_sync.flow
    from router_sync.actuators.around import Around
    from router_sync.actuators.hands import examine, opened
    from router_sync.actuators.section import Actuators
    from streams.runtime.worker import run_worker
    from tradewind.config.actuators import actuators_of
    from tradewind.config.sources import file_of

    file = file_of(config)
    section = actuators_of(file) if file is not None else Actuators()
    signals.log_to(None, "actuators", settings.log_level)
    around = Around(environment())
    examine(section, around)
    acting = [entry.pool for entry in section.pools if section.acts(entry)]
    signals.event("actuators_begin", acting=acting, mode=section.mode, entries=len(section.pools))
    does = f"plans for {', '.join(acting)} are carried out" if acting else "nothing is changed"
    print(f"tradewind: {does}; of all other pools it is said what would be done", file=sys.stderr)
    steps = router_sync.flow.actuator_steps(settings, section)
    return run_worker(steps, settings, "actuators", port, partial(opened, section, around))


def _signers(paths: list[Path]) -> list[Signer]:
    """The signers of the keys in `paths`; says the line by which gateways trust each."""
    from router_sync.keys import load_or_make, public_path, trust_line

    paths = list(dict.fromkeys(paths))
    if len(paths) > _MOST_KEYS:
        raise BadSetting("flags", "--key", [str(path) for path in paths], f"Give at most {_MOST_KEYS}.")
    signers = [load_or_make(path) for path in paths]
    for path, signer in zip(paths, signers, strict=True):
        line = trust_line(signer.public)
        signals.event("router_signs", kid=signer.kid, trust=line, trust_file=str(public_path(path)))
        print(f"tradewind: gateways follow this router when they trust {public_path(path)}: {line}", file=sys.stderr)
    return signers


def gateway(
    origin: Annotated[
        str | None, typer.Option(help="Where this gateway's callers are: an origin of the fleet. Here or in FILE.")
    ] = None,
    trust: Annotated[
        list[Path] | None,
        typer.Option(exists=True, help="The router's public key; twice while keys change. Here or in FILE."),
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option(
            exists=True,
            metavar="FILE",
            help="A tradewind.yaml with its sections `settings` and `gateway`; or one gateway's own settings, "
            "where paths start where the command does. Flags go before it.",
        ),
    ] = None,
    name: Annotated[
        str | None, typer.Option(help="Unique among gateways; a shared port needs it. Else gateway-1.")
    ] = None,
    host: Annotated[str | None, typer.Option(help="Address to listen on; else 127.0.0.1.")] = None,
    port: Annotated[int | None, typer.Option(min=0, max=65535, help="0 takes a free one; else 8080.")] = None,
    admin_port: Annotated[
        int | None,
        typer.Option(min=0, max=65535, help="For /metrics and /readyz, which PORT then has not."),
    ] = None,
    reuse_port: Annotated[bool, typer.Option("--reuse-port", help="Several gateway processes share the port.")] = False,
    keys: Annotated[Path | None, typer.Option(exists=True, help="Who may call, as what: API keys and classes.")] = None,
    anonymous: Annotated[bool, typer.Option("--anonymous", help="Serve callers without a key.")] = False,
    table_file: Annotated[Path | None, typer.Option(help="Follow a file instead of the topic.")] = None,
    check: Annotated[
        bool, typer.Option("--check", help="Say whether it could start, with these files and credentials, and stop.")
    ] = False,
    bootstrap_servers: Bootstrap = None,
    topic_prefix: Prefix = None,
) -> None:
    """Run a gateway until SIGTERM: it follows signed tables, forwards requests, and reports what it sees.

    Examples:
      tradewind gateway --origin europe --trust .tradewind/router.key.pub --anonymous
      tradewind gateway --config gateway.yaml --check
    """
    from router_sync.gateway import examine, run
    from streams.runtime.access import warn_if_open

    flags = {
        "name": name, "origin": origin, "host": host, "port": port, "admin_port": admin_port, "trust": trust or None,
        "reuse_port": reuse_port or None, "keys": keys, "anonymous": anonymous or None, "table_file": table_file,
        "bootstrap_servers": bootstrap_servers, "prefix": topic_prefix,
    }  # fmt: skip
    made, log_level = gateway_config(config, {field: value for field, value in flags.items() if value is not None})
    signals.log_to(None, made.name, log_level)
    warn_if_open(made.at)
    if check:
        examine(made, environment())
        print(f"tradewind: the gateway {made.name} of {made.origin} could start", file=sys.stderr)
        return
    run(made)


def gateway_config(file: Path | None, flags: Mapping[str, Any]) -> tuple[GatewayConfig, LogLevel]:
    """What `tradewind gateway` runs, and how much it logs: flags, then `file`, then the environment, then defaults.

    Of a tradewind.yaml the section `gateway` is meant, and `settings` come after the environment.
    Raises BadSetting with the field and the accepted range, BadFleet with all that is wrong in a tradewind.yaml.
    """
    from router_sync.gateway import checked
    from streams.runtime.access import Access
    from tradewind.config.sources import file_of

    file = file_of(file)
    fields, whole = _gateway_fields(file, flags) if file else ({}, None)
    said = {**fields, **flags}
    settings = _settled(file, whole, said, flags)
    said = {**_trusting(settings), **said}
    name = said.get("name", "gateway-1")
    usual = {
        "bootstrap_servers": settings.bootstrap_servers,
        "kafka": Access.of(settings),
        "prefix": settings.topic_prefix,
        "state_dir": settings.state_dir / str(name),
    }
    return checked(str(file) if file else "flags", {**usual, **said}), settings.log_level


def _settled(file: Path | None, whole: Path | None, said: Mapping[str, Any], flags: Mapping[str, Any]) -> Settings:
    """Settings where `said` goes before all else; what of it is no flag is blamed on `file`."""
    try:
        return settled(whole, bootstrap_servers=said.get("bootstrap_servers"), topic_prefix=said.get("prefix"))
    except BadSetting as error:
        field = "prefix" if error.field == "topic_prefix" else error.field
        if error.where != "flag" or field in flags:
            raise
        raise BadSetting(str(file), field, error.value, error.remedy) from None


def _gateway_fields(file: Path, flags: Mapping[str, Any]) -> tuple[dict[str, Any], Path | None]:
    """What `file` says of this gateway; and the file again where it is a tradewind.yaml, which has `settings` too."""
    from router_sync.gateway import load_fields
    from tradewind.config.whole import is_whole, read

    fields = load_fields(file)
    if not is_whole(fields):
        return fields, None
    section = read(file).gateway
    port = section.ports.get(flags.get("origin", ""))
    return {**section.fields, **({} if port is None else {"port": port})}, file


def _trusting(settings: Settings) -> dict[str, Any]:
    """The key of the router that runs here, where there is one: trusted unless others are named."""
    public = settings.state_dir / "router.key.pub"
    return {"trust": [public]} if public.is_file() else {}


def flow() -> None:
    """Show the map: every step, what it reads, what it writes, how often it speaks."""
    from tradewind.flow import lines

    print("\n".join(lines(settled())))
