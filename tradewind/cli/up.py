"""`tradewind up`: everything a tradewind.yaml needs, in one terminal, until Ctrl-C."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import quote

import msgspec
import typer

from tradewind.cli.options import AsJson, Bootstrap, Config, Prefix

if TYPE_CHECKING:
    from tradewind.up.run import Ready, Up

_KEY = "Authorization: Bearer "


def up(
    file: Annotated[
        Path | None, typer.Argument(metavar="[FILE]", help="Else TRADEWIND_CONFIG, else ./tradewind.yaml.")
    ] = None,
    config: Config = None,
    bootstrap_servers: Bootstrap = None,
    topic_prefix: Prefix = None,
    as_json: AsJson = False,
) -> None:
    """Run all that a tradewind.yaml needs until Ctrl-C: Kafka, workers, and a gateway for each origin.

    Kafka is embedded, with its data in STATE_DIR/kafka, unless bootstrap_servers says where yours is. The file is
    watched: a new version of the fleet is taken over without a restart, a bad one is refused and the old one stays.

    Examples:
      tradewind up
      tradewind up deploy/tradewind.yaml --bootstrap-servers kafka:9092
      tradewind up --json > ready.json &
    """
    if file is not None and config is not None:
        raise typer.BadParameter("the file is given twice: as FILE and with --config. Leave one of them out.")
    run = _made(file or config, bootstrap_servers, topic_prefix)
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)  # that the broker is away is said by us, once
    logging.getLogger("tradewind").addHandler(logging.NullHandler())  # what people need to hear is said
    asyncio.run(_until_stopped(run, as_json))
    _say("stopped; nothing runs any more")


def _made(file: Path | None, bootstrap_servers: str | None, topic_prefix: str | None) -> Up:
    from streams.settings import environment
    from tradewind.config.sources import FILE, file_of, settle
    from tradewind.config.whole import read
    from tradewind.up.kafka import runtime, wants_embedded
    from tradewind.up.run import Up

    whole = read(file_of(file) or FILE)
    flags = {"bootstrap_servers": bootstrap_servers, "topic_prefix": topic_prefix}
    settled = settle(whole.path, flags, beside_up=False)
    environ = environment()
    java = runtime(environ) if wants_embedded(settled) else None
    moves = sys.stderr.isatty()
    return Up(whole, settled.settings, java, environ, _say, pid=os.getpid(), moves=moves)


async def _until_stopped(run: Up, as_json: bool) -> None:
    """Until SIGINT, SIGTERM, or the terminal is closed, which end it in order; the second time at once."""
    loop = asyncio.get_running_loop()
    task = asyncio.ensure_future(run.run(lambda ready: _tell(run, ready, as_json)))
    hang_up = () if signal.getsignal(signal.SIGHUP) == signal.SIG_IGN else (signal.SIGHUP,)  # under nohup it goes on
    for number in (signal.SIGINT, signal.SIGTERM, *hang_up):
        loop.add_signal_handler(number, task.cancel)
    await asyncio.wait([task])
    if not task.cancelled():
        task.result()


def _tell(run: Up, ready: Ready, as_json: bool) -> None:
    """What runs where; the new key, this once; what to try."""
    if as_json:
        print(msgspec.json.encode(ready).decode(), flush=True)
    kafka = "embedded" if ready.embedded else "yours"
    _say(f"{'Kafka':<14} {ready.bootstrap_servers} ({kafka}), topics {ready.topic_prefix}.*")
    _say(f"{'fleet':<14} {ready.fleet} version {ready.fleet_version}, from {run.whole.path}, which is watched")
    for process in ready.processes:
        _say(f"{process.name:<14} process {process.pid}, {process.admin_url}/metrics")
    for origin, url in ready.gateways.items():
        _say(f"{f'for {origin}':<14} {url}")
    if run.credential and run.credential.new:
        _say(f"API key, shown this once and kept in {ready.api_key_file}: {run.credential.key}")
    _say(f"try:\n  {_curl(run, ready)}")
    _say(f"ready in {ready.ready_after_s:g} s; Ctrl-C ends it, logs are in {ready.state_dir}/log")


def _curl(run: Up, ready: Ready) -> str:
    url, (service, api) = next(iter(ready.gateways.values())), next(iter(ready.services.items()))
    words = ["curl"]
    if ready.api_key_file:
        words.append(f'-H "{_KEY}$(cat {ready.api_key_file})"')
    elif not run.whole.gateway.fields.get("anonymous"):
        words.append(f"-H '{_KEY}YOUR-KEY'")
    if api == "http":
        return " ".join([*words, f"{url}/services/{quote(service, safe='')}/"])
    body: Any = {"model": service, "messages": [{"role": "user", "content": "Hello"}]}
    words += ["-H 'content-type: application/json'", f"-d '{msgspec.json.encode(body).decode()}'"]
    return " ".join([*words, f"{url}/v1/chat/completions"])


def _say(words: str) -> None:
    print(words, file=sys.stderr, flush=True)
