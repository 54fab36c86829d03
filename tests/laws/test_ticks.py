"""Steps speak on the clock's own seconds: who hears another speaks just after it, whenever they were started."""

from __future__ import annotations

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from router_sync import flow as router_flow
from router_sync.sign import Signer
from streams import flow
from streams.runtime.step import Step
from streams.settings import Settings

SIGNER = Signer(Ed25519PrivateKey.from_private_bytes(bytes(32)))
instants = st.floats(1.7e9, 1.9e9)
periods = st.sampled_from([0.05, 0.2, 1.0, 5.0, 60.0])


def step(every_s: float, after_s: float) -> Step:
    return Step("any", (), (), None, every_s=every_s, after_s=after_s)  # type: ignore[arg-type]


@given(instants, periods, st.floats(0.0, 0.9))
def test_a_tick_lies_on_the_grid_and_never_follows_another_at_once(now_s: float, every_s: float, part: float) -> None:
    after_s = part * every_s
    tick_s = step(every_s, after_s).next_tick_s(now_s)
    off_s = (tick_s - after_s) % every_s
    assert min(off_s, every_s - off_s) == pytest.approx(0.0, abs=1e-5)
    assert 0.09 * every_s < tick_s - now_s < 1.11 * every_s


@given(instants, instants)
def test_the_router_speaks_soon_after_health_whenever_they_were_started(health_s: float, router_s: float) -> None:
    settings = Settings()
    health, router = flow.steps(settings)[0], router_flow.steps(settings, SIGNER)[0]
    behind_s = (router.next_tick_s(router_s) - health.next_tick_s(health_s)) % settings.tick_s
    assert behind_s == pytest.approx(0.15, abs=1e-5)
