"""`python -m tradewind.load`: the bundled arrivals through one gateway, until told to stop; a JSON line now and then.

Exit status: 0 stopped as told or over, 2 wrong usage. Failed requests are counted, they do not end it.
"""

import argparse
import asyncio
import contextlib
import json
import random
import signal
import sys
from collections.abc import Sequence

from streams.runtime import clock
from tradewind.load import SAMPLE, Counters, HttpSender, Target, TraceError, drive, plan
from tradewind.load import load as arrivals_of

_ROUND_S = 10.0


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit status."""
    given = _parser().parse_args(arguments)
    try:
        asyncio.run(_run(given))
    except TraceError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    return 0


async def _run(given: argparse.Namespace) -> None:
    stop, counters, number = asyncio.Event(), Counters(), 0
    for name in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(name, stop.set)
    target = Target(given.origin, "", given.gateway.rstrip("/"), given.api_key or "none", given.model)
    ends_s = clock.monotonic_s() + given.seconds if given.seconds else float("inf")
    async with HttpSender(clock.monotonic_s) as send:
        while not stop.is_set() and (left_s := ends_s - clock.monotonic_s()) > 0:
            lasts_s, began_s = min(left_s, _ROUND_S), clock.monotonic_s()
            arrivals = arrivals_of(SAMPLE, seconds=lasts_s, seed=given.seed + number, mean_rps=given.rps)
            shots = plan(arrivals, [target], random.Random(given.seed + number))
            await drive(shots, send, monotonic_s=clock.monotonic_s, counters=counters, stop=stop)
            number += 1
            _say(counters)
            with contextlib.suppress(TimeoutError):  # the last arrival may come before the round's end
                await asyncio.wait_for(stop.wait(), max(0.0, began_s + lasts_s - clock.monotonic_s()))


def _say(counters: Counters) -> None:
    print(
        json.dumps({"sent": counters.due, "ok": counters.ok, "failed": counters.failed, **counters.errors}), flush=True
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tradewind.load", description=__doc__)
    add = parser.add_argument
    add("--gateway", required=True, metavar="URL", help="as in http://127.0.0.1:8080")
    add("--model", required=True, help="the service that is asked for")
    add("--rps", type=float, default=5.0, help="mean requests a second")
    add("--seconds", type=float, help="end then; until it is stopped when left out")
    add("--origin", default="load", help="what the requests say of where they come from")
    add("--api-key", help="sent with each request; a gateway that takes callers without a key needs none")
    add("--seed", type=int, default=1, help="of arrivals and of which requests are streamed")
    return parser


if __name__ == "__main__":
    sys.exit(main())
