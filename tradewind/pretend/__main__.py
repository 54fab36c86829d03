"""`python -m tradewind.pretend`: one endpoint as a process; one JSON line on stdout says when it listens."""

import argparse
import asyncio
import json
import os
import signal
import stat
import sys
from collections.abc import Sequence
from pathlib import Path

from streams.runtime import clock
from tradewind.pretend.endpoint import Endpoint
from tradewind.pretend.settings import EndpointSettings

STDIN = 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code: 0 stopped as told, 1 a port is taken, 2 wrong usage."""
    parser = _parser()
    given = parser.parse_args(arguments)
    try:
        settings = _settings(given)
    except ValueError as error:
        parser.error(str(error))
    if given.stop_on_stdin_eof and not _is_pipe(STDIN):
        parser.error("--stop-on-stdin-eof: stdin is not a pipe; give one, or leave the flag out")
    try:
        asyncio.run(_serve(settings, given.stop_on_stdin_eof))
    except OSError as error:
        ports = f"port {settings.port} or admin port {settings.admin_port}"
        sys.stderr.write(f"{settings.name}: cannot listen ({error}); free {ports}, or give 0 for any free port\n")
        return 1
    return 0


async def _serve(settings: EndpointSettings, stop_on_stdin_eof: bool) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    endpoint = Endpoint(settings, monotonic_s=clock.monotonic_s, now_s=clock.now_s)
    await endpoint.start()
    if stop_on_stdin_eof:
        _watch_stdin(loop, stop)
    _say({"ready": True, "name": settings.name, "port": endpoint.port, "admin_port": endpoint.admin_port})
    await stop.wait()
    await endpoint.stop()


def _watch_stdin(loop: asyncio.AbstractEventLoop, stop: asyncio.Event) -> None:
    """Stop when the parent's end of the pipe closes: then no parent, killed however, leaves this process behind."""

    def readable() -> None:
        if not os.read(STDIN, 4096):
            loop.remove_reader(STDIN)
            stop.set()

    loop.add_reader(STDIN, readable)


def _is_pipe(number: int) -> bool:
    mode = os.fstat(number).st_mode
    return stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode)


def _say(line: dict[str, object]) -> None:
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()


def _settings(given: argparse.Namespace) -> EndpointSettings:
    fields = {name: value for name, value in vars(given).items() if name != "stop_on_stdin_eof" and value is not None}
    if "rtt" in fields:
        fields["rtt_ms"] = tuple(_rtt(words) for words in fields.pop("rtt"))
    if "models" in fields:
        fields["models"] = tuple(fields["models"])
    return EndpointSettings(**fields)


def _rtt(words: str) -> tuple[str, float]:
    origin, _, ms = words.partition("=")
    try:
        return origin, float(ms)
    except ValueError:
        raise ValueError(f"--rtt: {words!r}; give ORIGIN=MILLISECONDS, as in europe=12") from None


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tradewind.pretend", description=__doc__)
    add = parser.add_argument
    add("--name", required=True, help="the endpoint's name")
    add("--port", type=int, help="port of the OpenAI API on 127.0.0.1; 0 takes a free one (default)")
    add("--admin-port", type=int, help="port of GET and POST /fault; 0 takes a free one (default)")
    add("--model", action="append", dest="models", help="a model it serves; may be given again")
    add("--capacity-rps", type=float, help="requests per second it can serve")
    add("--base-ttft-ms", type=float, help="time to first token when idle")
    add("--base-between-ms", type=float, help="time between tokens when idle")
    add("--noise-sigma", type=float, help="spread of the lognormal noise on times")
    add("--mean-output-tokens", type=float, help="mean length of an answer nobody limited")
    add("--slots", type=int, help="requests run side by side; derived from the capacity when not given")
    add("--queue-limit", type=int, help="requests that may wait; the next is refused with 429")
    add("--max-model-tokens", type=int, help="longest prompt and answer together")
    add("--chunk-ms", type=float, help="distance of a stream's chunks")
    add("--grace-s", type=float, help="how long open requests may run on after SIGTERM")
    add("--rtt", action="append", metavar="ORIGIN=MS", help="the way from an origin; may be given again")
    add("--ledger", type=Path, metavar="FILE", help="append a line there for each request received")
    add("--seed", type=int, help="seed of the noise")
    add("--stop-on-stdin-eof", action="store_true", help="stop when stdin closes, as it does when the parent dies")
    return parser


if __name__ == "__main__":
    sys.exit(main())
