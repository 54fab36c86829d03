"""The memory carrier by itself: its pace, what it forgets, what is read from where."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec
import pytest

from streams.contract.records import Order
from streams.contract.topics import ORDERS
from streams.runtime.memory import MemoryCarrier
from streams.runtime.step import Earliest, Heard, Reads, Step


class Watch:
    """Notes when it is asked to speak, and what it has heard."""

    def __init__(self) -> None:
        self.spoke_s: list[float] = []
        self.heard: list[str] = []

    def empty(self) -> None:
        return None

    def fold(self, state: None, heard: Heard[Any]) -> None:
        self.heard += [record.endpoint for record in heard.records]

    def advance(self, state: None, now_s: float) -> None:
        self.spoke_s.append(now_s)

    def view(self, state: None, now_s: float) -> Iterable[msgspec.Struct]:
        return ()

    def urgent(self, state: None) -> bool:
        return False


def carrier(watch: Watch, **more: Any) -> MemoryCarrier:
    step = Step("watch", (Reads(ORDERS, Earliest()),), (), watch, every_s=1.0, after_s=0.25)
    return MemoryCarrier([step], now_s=100.0, **more)


def order(of: MemoryCarrier, endpoint: str) -> None:
    of.send(ORDERS, endpoint, msgspec.json.encode(Order(endpoint=endpoint, drain=True, at_s=of.now_s)))


def test_steps_speak_at_their_own_pace_or_at_the_carriers_and_after_each_other_as_before() -> None:
    watch = Watch()
    of = carrier(watch)
    of.run_until(102.5)
    of.pace(10.0)
    of.run_until(125.0)
    of.pace(1.0)
    of.run_until(127.0)
    assert watch.spoke_s == pytest.approx([100.25, 101.25, 102.25, 110.25, 120.25, 125.25, 126.25])


def test_what_is_forgotten_was_read_by_everybody_and_offsets_go_on() -> None:
    watch = Watch()
    of = carrier(watch, forgotten=(ORDERS,), batch=2)
    for name in ("a", "b", "c"):
        order(of, name)
    of.run_until(101.0)
    order(of, "d")
    of.run_until(102.0)
    assert watch.heard == ["a", "b", "c", "d"]
    assert of.said(ORDERS) == []
    order(of, "e")
    assert [message.offset for message in of.said(ORDERS)] == [4]


def test_a_topic_is_read_from_an_offset_on() -> None:
    of = carrier(Watch())
    for name in ("a", "b", "c"):
        order(of, name)
    assert [message.key for message in of.since(ORDERS, 1)] == [b"b", b"c"]
    assert of.since(ORDERS, 3) == []


def test_a_carrier_of_no_steps_lets_time_pass() -> None:
    of = MemoryCarrier((), now_s=5.0)
    of.run_until(9.0)
    assert of.now_s == 9.0
