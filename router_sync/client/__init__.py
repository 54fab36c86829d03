"""Gateway library: follow signed routing tables, keep the last good one, pick an endpoint in microseconds.

    source = KafkaSource("127.0.0.1:19092", "tradewind")
    follower = Follower(load_trust(Path("router.pub")), Shelf(Path("tables")))
    async for found in source.records():
        if table := follower.offer(found, now_s()):
            picker.adopt(table)
    ...
    route = picker.route("eu", "chat")
    if route is None or not picker.admits(route):
        ...  # nothing leads there; or there is not room for all: answer 429
    elif pick := picker.pick("eu", "chat"):
        trial = pick.endpoint.begin()
        ...
        pick.endpoint.ok(monotonic_s(), latency_ms, trial)

It needs neither Faust nor the other rooms.
"""

from router_sync.client.endpoint import LocalEndpoint
from router_sync.client.follow import Follower, Held
from router_sync.client.pick import Pick, Picker
from router_sync.client.shelf import Found, Shelf
from router_sync.client.source import FileSource, KafkaSource, Source

__all__ = [
    "FileSource",
    "Follower",
    "Found",
    "Held",
    "KafkaSource",
    "LocalEndpoint",
    "Pick",
    "Picker",
    "Shelf",
    "Source",
]
