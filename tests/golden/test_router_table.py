"""One table's exact bytes and signature: gateways verify bytes, so a change here is a change of the wire.

After a change that is meant: `python -m tests.golden.test_router_table` writes the files anew; review the difference.
"""

from __future__ import annotations

from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from router_sync.greedy import greedy
from router_sync.heard import HeardDemand, HeardHealth
from router_sync.layout import layout
from router_sync.problem import completed
from router_sync.sign import Signer, Trust
from router_sync.situation import situation
from router_sync.table import Draft, Number, build
from streams.contract import topics
from streams.runtime.runner import Runner
from streams.runtime.step import Earliest, Reads, Step
from tests.unit.router_fleet import demand, fleet, health, knowing, request_class, told

HERE = Path(__file__).parent
VALUE, SEAL = HERE / "routing_table.json", HERE / "routing_table.tw-sig"
SIGNER = Signer(Ed25519PrivateKey.from_private_bytes(bytes(range(32))))


def made() -> tuple[bytes, bytes, bytes]:
    """Key, value and signature of a table with a law, an outage and a measured demand, as the runner sends it."""
    of = fleet([request_class("private", jurisdictions=("IE", "NO")), request_class("batch", slo_p95_ms=5000.0)])
    heard, asked = HeardHealth(), HeardDemand()
    told(heard, health([e.name for e in of.endpoints], 1_800_000_000.0, {"eu-west-a": 1_799_999_999.5}))
    told(asked, demand(1_799_999_999.0, {("eu", "private"): 70, ("eu", "batch"): 150, ("us", "batch"): 90}))
    at = situation(layout(of), knowing(layout(of), heard, asked), 1_800_000_000.0)
    shares = completed(at.problem, greedy(at.problem))
    draft = Draft(at.plan, shares, at.usable, at.standings, at.scores, at.quoted, at.p95_ms)
    table = build(draft, "chat", Number(1_800_000_000, 2), 1_800_000_000.0, 300.0, "golden", 1_799_999_999.5)
    stage = _Says(table)
    runner = Runner(
        Step("golden", (Reads(topics.FLEET, Earliest()),), (topics.ROUTING_TABLE,), stage, seal=SIGNER.seal)
    )
    runner.assign(0)
    [out] = runner.tick(1_800_000_000.0)
    [seal] = [value for name, value in out.headers if name == topics.SIGNATURE]
    return out.key, out.value or b"", seal


class _Says:
    """A stage with one thing to say."""

    def __init__(self, table: object) -> None:
        self.table = table

    def empty(self) -> None:
        return None

    def advance(self, state: None, now_s: float) -> None:
        return None

    def view(self, state: None, now_s: float) -> list[object]:
        return [self.table]

    def fold(self, state: None, heard: object) -> None:
        return None

    def urgent(self, state: None) -> bool:
        return False


def test_a_table_is_the_same_bytes_and_the_same_signature_as_ever() -> None:
    key, value, seal = made()
    assert (key, value, seal) == (b"chat", VALUE.read_bytes(), SEAL.read_bytes())


def test_the_recorded_signature_verifies_the_recorded_bytes() -> None:
    trust = Trust({SIGNER.kid: SIGNER.public})
    headers = [(topics.SIGNATURE, SEAL.read_bytes())]
    assert trust.verify(headers, b"chat", VALUE.read_bytes()) == SIGNER.kid == "56475aa75463474c"


if __name__ == "__main__":
    _, value, seal = made()
    VALUE.write_bytes(value)
    SEAL.write_bytes(seal)
