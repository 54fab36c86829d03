"""Following tables: what is refused and why, what survives on disk, and what is yielded from a file."""

from __future__ import annotations

import asyncio
import os
import threading
from pathlib import Path
from typing import Any

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from router_sync.client import FileSource, Follower, Found, KafkaSource, Shelf
from router_sync.client.shelf import pack
from router_sync.sign import Signer, Trust
from streams.contract.records import Route, RoutingTable, TableEndpoint

NOW_S = 1000.0
SIGNER = Signer(Ed25519PrivateKey.generate())
OTHER = Signer(Ed25519PrivateKey.generate())
TRUST = Trust({SIGNER.kid: SIGNER.public})


def table(**fields: Any) -> RoutingTable:
    endpoint = TableEndpoint(
        name="a",
        url="http://a:1",
        provider="p",
        region="r",
        zone="z",
        jurisdiction="DE",
        capacity_rps=10,
        concurrency=8,
        cost_usd_per_request=0.0,
        latency_p95_ms=100,
    )
    route = Route(origin="eu", class_="chat", slo_p95_ms=300, endpoints=("a",), shares=(1.0,))
    usual: dict[str, Any] = {
        "service": "m",
        "epoch": 7,
        "version": 3,
        "issued_at_s": NOW_S,
        "expires_at_s": NOW_S + 300,
        "fleet_version": 1,
        "default_class": "chat",
        "endpoints": (endpoint,),
        "routes": (route,),
    }
    return RoutingTable(**{**usual, **fields})


def sealed(of: RoutingTable | bytes, *signers: Signer, key: bytes = b"m") -> Found:
    value = of if isinstance(of, bytes) else msgspec.json.encode(of)
    return Found(key, value, [header for signer in signers or (SIGNER,) for header in signer.seal(key, value)])


def follower(folder: Path | None = None) -> Follower:
    return Follower(TRUST, Shelf(folder) if folder else None)


def keep(folder: Path, found: Found) -> None:
    """Follow `found` and end, so that it is on disk."""
    shelf = Shelf(folder)
    assert Follower(TRUST, shelf).offer(found, NOW_S) is not None
    shelf.settle()


def test_a_sound_table_is_adopted_with_its_age_and_number() -> None:
    one = follower()
    assert one.offer(sealed(table()), NOW_S + 2) == table()
    held = one.held["m"]
    assert held.number == (7, 3)
    assert held.age_s(NOW_S + 10) == 10
    assert held.kid == SIGNER.kid
    assert not held.expired(NOW_S + 10)
    assert held.expired(NOW_S + 300)


def _tampered() -> Found:
    good = sealed(table())
    return good._replace(value=good.value.replace(b"http://a:1", b"http://b:1"))


def _route(**fields: Any) -> RoutingTable:
    usual: dict[str, Any] = {
        "origin": "eu",
        "class_": "chat",
        "slo_p95_ms": 300,
        "endpoints": ("a",),
        "shares": (1.0,),
    }
    return table(routes=(Route(**{**usual, **fields}),))


REFUSED = {
    "unsigned": (sealed(table())._replace(headers=[]), "signature"),
    "signed by a stranger": (sealed(table(), OTHER), "signature"),
    "changed after signing": (_tampered(), "signature"),
    "signed for another key": (sealed(table())._replace(key=b"n"), "signature"),
    "another service's record": (sealed(table(), key=b"n"), "key"),
    "not JSON": (sealed(b"{"), "schema"),
    "a tombstone": (Found(b"m", b"", []), "signature"),
    "a field out of range": (sealed(b'{"service":"m"}'), "schema"),
    "an endpoint nobody described": (sealed(_route(endpoints=("b",))), "schema"),
    "a fallback nobody described": (sealed(_route(fallbacks=("b",))), "schema"),
    "a share too few": (sealed(msgspec.json.encode(table()).replace(b"[1.0]", b"[]")), "schema"),
    "shares that do not add up": (sealed(_route(shares=(0.5,))), "schema"),
    "issued in the future": (sealed(table(issued_at_s=NOW_S + 5.1)), "issued_at_s"),
    "expired": (sealed(table(issued_at_s=1, expires_at_s=NOW_S)), "expires_at_s"),
    "too large": (Found(b"m", b" " * 1_000_001, []), "size"),
}


@pytest.mark.parametrize(("found", "reason"), REFUSED.values(), ids=REFUSED.keys())
def test_what_must_not_be_followed_is_refused_counted_and_changes_nothing(found: Found, reason: str) -> None:
    one = follower()
    assert one.offer(sealed(table(version=1)), NOW_S) is not None
    assert one.offer(found, NOW_S) is None
    assert one.held["m"].number == (7, 1)
    assert one.refused[found.key.decode()] == {reason: 1}


@pytest.mark.parametrize("number", [(7, 3), (7, 2), (6, 99)])
def test_a_number_that_does_not_grow_is_refused(number: tuple[int, int]) -> None:
    one = follower()
    one.offer(sealed(table()), NOW_S)
    assert one.offer(sealed(table(epoch=number[0], version=number[1], reason="other")), NOW_S) is None
    assert one.refused["m"] == {"version": 1}


def test_a_new_epoch_begins_at_any_version() -> None:
    one = follower()
    one.offer(sealed(table()), NOW_S)
    assert one.offer(sealed(table(epoch=8, version=0)), NOW_S) is not None


def test_reading_the_table_in_force_again_is_no_refusal() -> None:
    one = follower()
    one.offer(sealed(table()), NOW_S)
    assert one.offer(sealed(table()), NOW_S + 1) is None
    assert not one.refused.get("m")


def test_two_signatures_are_accepted_when_either_key_is_trusted() -> None:
    assert follower().offer(sealed(table(), OTHER, SIGNER), NOW_S) is not None
    both = Follower(Trust({SIGNER.kid: SIGNER.public, OTHER.kid: OTHER.public}))
    assert both.offer(sealed(table(), OTHER), NOW_S) is not None


def test_the_last_good_table_comes_back_from_disk_byte_for_byte_and_guards_against_rollback(tmp_path: Path) -> None:
    keep(tmp_path, sealed(table()))
    (file,) = tmp_path.iterdir()
    assert file.stat().st_mode & 0o777 == 0o600
    again = follower(tmp_path)
    assert again.restore(NOW_S + 1) == [table()]
    assert again.held["m"].found == sealed(table())
    assert again.offer(sealed(table(version=2)), NOW_S + 1) is None
    assert again.refused["m"] == {"version": 1}


def test_a_table_that_expired_on_disk_is_held_and_flagged(tmp_path: Path) -> None:
    keep(tmp_path, sealed(table()))
    again = follower(tmp_path)
    assert again.restore(NOW_S + 1000) == [table()]
    assert again.held["m"].expired(NOW_S + 1000)


@pytest.mark.parametrize("content", [b"", b"\x00\xff", b'{"key":1}', pack(sealed(table(), OTHER)), pack(_tampered())])
def test_a_spoilt_file_on_disk_is_left_aside(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "m.table").write_bytes(content)
    one = follower(tmp_path)
    assert one.restore(NOW_S) == []
    assert one.offer(sealed(table()), NOW_S) is not None


def test_a_disk_that_cannot_be_written_does_not_stop_a_table(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("not a folder")
    keep(blocked, sealed(table()))


def test_a_service_name_with_slashes_makes_one_file_in_the_folder(tmp_path: Path) -> None:
    keep(tmp_path, sealed(table(service="org/m"), key=b"org/m"))
    assert len(list(tmp_path.iterdir())) == 1
    assert follower(tmp_path).restore(NOW_S) == [table(service="org/m")]


def test_a_slow_disk_holds_up_nobody_and_of_the_tables_that_wait_for_it_the_last_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writes, begun, released = list[str](), threading.Event(), threading.Event()

    def fsync(_: int) -> None:
        writes.append(threading.current_thread().name)
        begun.set()
        assert released.wait(10)

    monkeypatch.setattr(os, "fsync", fsync)
    shelf = Shelf(tmp_path)
    one = Follower(TRUST, shelf)
    assert one.offer(sealed(table(version=1)), NOW_S) is not None
    assert begun.wait(10)
    for version in range(2, 6):
        assert one.offer(sealed(table(version=version)), NOW_S) is not None
    assert one.held["m"].number == (7, 5)
    released.set()
    shelf.settle()
    assert len(writes) == 2
    assert threading.current_thread().name not in writes
    assert follower(tmp_path).restore(NOW_S) == [table(version=5)]


@pytest.mark.parametrize("key", [b"", b"\xff", b"a b", b"x" * 129])
def test_refusals_under_a_key_that_is_no_name_are_counted_together(key: bytes) -> None:
    one = follower()
    assert one.offer(Found(key, b"{}", []), NOW_S) is None
    assert one.refused == {"other": {"signature": 1}}
    assert one.counted_as(key) == "other"


async def test_a_file_is_followed_through_absence_nonsense_and_change(tmp_path: Path) -> None:
    path = tmp_path / "t"
    source = FileSource(path, every_s=0.01)
    records = source.records()
    waiting = asyncio.ensure_future(anext(records))
    async with asyncio.timeout(10):
        path.write_bytes(b"nonsense")
        while not source.failures:  # noqa: ASYNC110 - the source tells by its count
            await asyncio.sleep(0.01)
        path.write_bytes(pack(sealed(table())))
        assert await waiting == sealed(table())
        draft = tmp_path / "draft"
        draft.write_bytes(pack(sealed(table(version=4))))
        draft.replace(path)
        assert await anext(records) == sealed(table(version=4))
    await records.aclose()  # type: ignore[attr-defined]


async def test_a_file_that_is_away_is_told_once_and_its_return_too(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "t"
    source = FileSource(path, every_s=0.01)
    with caplog.at_level("INFO", logger="tradewind"):
        records = source.records()
        waiting = asyncio.ensure_future(anext(records))
        async with asyncio.timeout(10):
            while source.why is None:  # noqa: ASYNC110 - it tells nobody
                await asyncio.sleep(0.01)
            await asyncio.sleep(0.05)
            path.write_bytes(pack(sealed(table())))
            await waiting
        await records.aclose()  # type: ignore[attr-defined]
    told = [record.message for record in caplog.records]
    assert told == ["table_source_away", "table_source_back"]
    assert source.why is None


def test_a_flood_of_forged_names_is_one_line_a_reason_and_few_names(caplog: pytest.LogCaptureFixture) -> None:
    one = follower()
    for number in range(1000):
        one.offer(Found(b"forged-%d" % number, b"{}", []), NOW_S)
    assert one.refusals() == {"signature": 1000}
    assert len(one.refused) <= 17
    assert [record.message for record in caplog.records] == ["table_refused"]
    one.offer(Found(b"m", b"{}", []), NOW_S + 10)
    assert len(caplog.records) == 2


class Silent:
    """Stands for aiokafka's consumer at a broker that has `topics`, and says no more."""

    def __init__(self, topics: set[str]) -> None:
        self._topics = topics

    async def start(self) -> None: ...

    async def stop(self) -> None: ...

    async def topics(self) -> set[str]:
        return self._topics


async def test_a_broker_without_the_topic_is_told_once_with_the_remedy(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    source = KafkaSource("b:1", "t")
    monkeypatch.setattr(source, "_consumer", lambda: Silent(set()))
    waiting = asyncio.ensure_future(anext(source.records()))
    async with asyncio.timeout(10):
        while source.failures < 2:  # noqa: ASYNC110 - it tells nobody
            await asyncio.sleep(0.01)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    assert "tradewind topics create" in (source.why or "")
    assert [record.message for record in caplog.records] == ["table_source_away"]
