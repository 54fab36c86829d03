"""Follow routing tables and pick endpoints: `python examples/follow_table.py TRUST_FILE [HOST:PORT [PREFIX]]`.

TRUST_FILE holds the router's public key: `.tradewind/router.key.pub` of `tradewind up` or a router of yours,
`.tradewind/demo/router.key.pub` of the demo.
"""

import asyncio
import random
import sys
import time
from pathlib import Path

from router_sync.client import Follower, KafkaSource, Picker
from router_sync.keys import load_trust


async def main(trust: str, bootstrap: str = "127.0.0.1:19092", prefix: str = "tradewind") -> None:
    """Print each new table, and where its routes' next requests would go."""
    follower, pickers = Follower(load_trust(Path(trust))), {}
    async for found in KafkaSource(bootstrap, prefix).records():
        table = follower.offer(found, time.time())  # None: refused or not newer; follower.refused counts why
        if table is None:
            continue
        if table.service in pickers:
            pickers[table.service].adopt(table)
        else:
            pickers[table.service] = Picker(table, rng=random.Random(), clock=time.monotonic)
        print(f"{table.service} {table.epoch}.{table.version}: {table.reason}", flush=True)
        for route in table.routes:
            pick = pickers[table.service].pick(route.origin, route.class_)
            print(f"  {route.class_}@{route.origin} -> {pick.endpoint.name if pick else 'nowhere'}", flush=True)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
