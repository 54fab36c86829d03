"""The map: every step of the house, what it reads, what it writes, how often it speaks.

metrics, prices ─► streams/ ─► forecasting/ ─► router_sync/ ─► gateways ─► metrics …
                    heard       expected        decided, said
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from numpy.typing import NDArray

import forecasting.flow
import router_sync.flow
import streams.flow
from router_sync.layout import layout
from router_sync.sign import Signer
from streams.contract.records import Fleet
from streams.runtime.step import Earliest, Step
from streams.settings import Settings

ROOMS = ("streams", "forecasting", "router", "actuators")


def rooms(settings: Settings, signer: Signer | None = None) -> Mapping[str, tuple[Step, ...]]:
    """The steps of each room that runs. A room is one Faust app, one consumer group, one kind of process.

    Without a `signer` one is made up: good for a look at the map; no gateway trusts it.
    """
    signer = signer or Signer(Ed25519PrivateKey.generate())
    return {
        "streams": streams.flow.steps(settings),
        "forecasting": forecasting.flow.steps(settings, lawful),
        "router": router_sync.flow.steps(settings, signer),
        "actuators": router_sync.flow.actuator_steps(settings),
    }


def lawful(fleet: Fleet) -> NDArray[np.bool_]:
    """[flow, endpoint] the law of a fleet, for those who plan capacity: it is compiled where tables are built."""
    return layout(fleet).may


def lines(settings: Settings) -> list[str]:
    """One line per step, for people."""
    return [
        f"{room:11} {step.name:9} {' + '.join(_reads(step)):75} ─► {', '.join(t.name for t in step.writes)}"
        f"   every {step.every_s:g} s, at once on evidence"
        for room, steps in rooms(settings).items()
        for step in steps
    ]


def _reads(step: Step) -> list[str]:
    return [
        f"{r.topic.name} ({'all' if isinstance(r.restore, Earliest) else f'last {r.restore.seconds:g} s'})"
        for r in step.reads
    ]
