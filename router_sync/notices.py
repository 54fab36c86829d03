"""Notices that an endpoint is about to go: no new requests from then on, live sessions elsewhere before the deadline.

    notice ──────────────── deadline ── + GONE_S ──►
    drained: shares go at once, what runs may finish │ if it answers still, or again, it is let in stepwise
             sessions move before `leave_by_s`       │ else its health says so by now

Of an endpoint of several replicas some may go: then it is as much smaller, and nobody is drained. An advisory
(rebalance) drains nobody: it comes far oftener than an interruption does, and raises the risk price instead. Where
nothing else is left, who is about to go still serves: a notice is weaker than an operator's order.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any, Final

from streams.contract.errors import shown
from streams.contract.records import Fleet, Interruption
from streams.runtime.step import Heard, Refusal

ADVICE: Final = frozenset({"rebalance"})
MOST: Final = 64
"""Notices kept of one endpoint: the newest."""
Notices = dict[str, dict[tuple[float, float | None, int | None], Interruption]]
"""Endpoint to its notices: several may come at once."""
GONE_S: Final = 60.0
"""After its deadline an endpoint is gone, or its health is asked again."""


def astray(fleet: Fleet | None, heard: Heard[Any]) -> Iterator[Refusal]:
    """Notices for endpoints that a known fleet has not, and those whose deadline is before them."""
    known = None if fleet is None else {e.name for e in fleet.endpoints}
    for position, said in zip(heard.positions.tolist(), heard.records, strict=True):
        if known is not None and said.endpoint not in known:
            yield Refusal(position, "endpoint", shown(said.endpoint), "is not in the fleet")
        elif said.deadline_at_s is not None and said.deadline_at_s < said.notice_at_s:
            yield Refusal(position, "deadline_at_s", shown(said.deadline_at_s), "is before notice_at_s")


def noticed(notices: Notices, said: Interruption) -> bool:
    """Take a notice into `notices`; whether somebody has to leave for it."""
    if said.kind in ADVICE:
        return False
    held = notices.setdefault(said.endpoint, {})
    held[said.notice_at_s, said.deadline_at_s, said.replicas] = said
    while len(held) > MOST:
        del held[min(held, key=lambda at: at[0])]
    return True


def leave_by_s(said: Interruption) -> float:
    """When its sessions have to be elsewhere: at once, where no deadline was named."""
    return said.notice_at_s if said.deadline_at_s is None else said.deadline_at_s


def leaving(notices: Notices, known: Collection[str], now_s: float) -> dict[str, Interruption]:
    """The notices in force at `now_s` on endpoints of `known` that go as a whole: of each the first to be over."""
    found: dict[str, Interruption] = {}
    for name in notices.keys() & set(known):
        whole = [said for said in notices[name].values() if said.replicas is None and now_s < leave_by_s(said) + GONE_S]
        if whole:
            found[name] = min(whole, key=leave_by_s)
    return dict(sorted(found.items()))


def fewer(notices: Notices, now_s: float) -> dict[str, int]:
    """Replicas by endpoint that go by their deadlines; after those, who counts replicas knows of it."""
    return {
        name: sum(said.replicas for said in held.values() if said.replicas is not None and now_s < leave_by_s(said))
        for name, held in notices.items()
    }


def words(said: Interruption, now_s: float) -> str:
    """Who leaves, when and why, as one phrase.

    >>> words(Interruption(endpoint="eu-b", kind="preempt", notice_at_s=100, deadline_at_s=130), 101.0)
    'eu-b leaves in 29 s: preempt notice'
    >>> words(Interruption(endpoint="eu-b", kind="outage", notice_at_s=100), 101.0)
    'eu-b leaves now: outage notice'
    >>> words(Interruption(endpoint="eu-b", kind="stop", notice_at_s=100, replicas=2, reason="bill"), 101.0)
    '2 of eu-b leave now: stop notice, bill'
    """
    left_s = leave_by_s(said) - now_s
    who = f"{said.endpoint} leaves" if said.replicas is None else f"{said.replicas} of {said.endpoint} leave"
    why = f"{said.kind} notice" + (f", {said.reason}" if said.reason else "")
    return f"{who} {f'in {left_s:.0f} s' if left_s > 0 else 'now'}: {why}"
