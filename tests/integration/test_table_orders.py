"""An operator holds a table, rolls it back and compares, on a real Kafka with a router that obeys."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest
from typer.testing import CliRunner

from streams.contract import topics
from streams.contract.errors import BadSetting, Missing, TradewindError
from streams.contract.records import RoutingTable, TableOrder
from streams.settings import Settings
from tests.contract.on_kafka import read_all, until
from tests.integration.test_hands import A, B, Operator, mine, newest, publish, router, two  # noqa: F401
from tests.unit.router_fleet import endpoint, fleet
from tradewind.cli import app
from tradewind.hands.decisions import number_of

pytestmark = pytest.mark.kafka


async def refused(she: Operator, *words: str) -> TradewindError:
    result = await asyncio.to_thread(CliRunner().invoke, app, [*words, *she._where])
    assert isinstance(result.exception, TradewindError), result.output
    return result.exception


def shares(table: RoutingTable | dict[str, Any]) -> dict[str, float]:
    """Of batch from eu."""
    routes: Any = table.routes if isinstance(table, RoutingTable) else table
    route = next(r for r in routes if (r.origin, r.class_) == ("eu", "batch"))
    return dict(zip(route.endpoints, route.shares, strict=True))


async def test_she_freezes_a_table_rolls_it_back_compares_and_lets_it_go(mine: Settings) -> None:  # noqa: F811
    she = Operator(mine)
    async with router(mine, two()):
        before = await newest(mine)
        code, told = await she.types(
            "table", "freeze", "chat", "--reason", "strange bill", "--by", "ann", "--for", "1h"
        )
        table = told["table"]
        assert (code, table["after_ms"] < 2000, told["hold"]) == (0, True, True)
        assert table["held"].startswith("held by ann until ")
        assert table["held"].endswith(": strange bill")
        assert told["of"] == f"{table['epoch']}.{table['version']}"
        held = table["held"].replace("held by", f"held at {told['of']} by")
        await until(lambda: _held(mine, held))
        assert table["changed"]["routes"] == []
        assert shares(await newest(mine)) == shares(before)
        noted = (await she.types("status"))[1]["noted"]
        assert f"the table for chat is {held}" in noted
        assert (await she.types("table", "show", "chat"))[1]["tables"][0]["held"] == held

        assert (await she.types("drain", A, "--by", "ann"))[0] == 0
        drained = await newest(mine)
        assert shares(drained) == {B: 1.0}
        code, told = await she.types("table", "unfreeze", "chat")
        assert (code, told["table"]["held"], (await newest(mine)).held) == (0, "", "")
        assert (await she.types("undrain", A))[0] == 0

        code, told = await she.types("table", "rollback", "chat", "--to", f"{drained.epoch}.{drained.version}")
        assert (code, told["of"]) == (0, f"{drained.epoch}.{drained.version}")
        back = await newest(mine)
        assert (back.epoch, back.version) > (drained.epoch, drained.version)
        assert shares(back) == {B: 1.0}

        code, told_why = await she.types("explain", "chat", "--origin", "eu", "--class", "batch")
        assert (code, told_why["vouched"], told_why["held"]) == (0, True, back.held)
        assert {e["endpoint"]: e["share"] for e in told_why["routes"][0]["endpoints"]} == {A: 0.0, B: 1.0}
        code, chain = await she.types("decisions", "verify")
        [state] = chain["services"]
        assert (code, chain["signatures"], state["vouched"]) == (0, True, state["decisions"])

        code, found = await she.types("table", "diff", "chat", f"{before.epoch}.{before.version}", told["of"])
        assert code == 0
        assert found["states"] == [{"of": A, "what": "state", "was": "ready", "now": "drain"}]
        moved = {(r["origin"], r["class"]): r["shares"] for r in found["routes"]}
        assert moved["eu", "batch"][A][1] == 0.0
        last = (await she.types("table", "diff", "chat"))[1]["b"]
        assert number_of("B", last) >= (back.epoch, back.version)


async def test_what_cannot_be_held_is_refused_with_what_could(mine: Settings) -> None:  # noqa: F811
    she = Operator(mine)
    async with router(mine, two()):
        assert isinstance(error := await refused(she, "table", "freeze", "chatt"), BadSetting)
        assert "Did you mean chat" in str(error)
        last = await newest(mine)
        error = await refused(she, "table", "rollback", "chat", "--to", "7.1")
        assert isinstance(error, Missing)
        assert "Table 7.1 of chat is gone" in str(error)
        assert f"The oldest that can still be found is {last.epoch}.1" in str(error)
        assert isinstance(await refused(she, "table", "rollback", "chat", "--to", f"{last.epoch + 9}.1"), BadSetting)
        assert "1 change ago is gone" in str(await refused(she, "table", "rollback", "chat", "--steps", "1"))
        assert isinstance(await refused(she, "table", "rollback", "chat"), BadSetting)
        assert not (await newest(mine)).held


async def test_an_order_for_a_service_that_left_the_fleet_can_be_ended(mine: Settings) -> None:  # noqa: F811
    she = Operator(mine)
    other = msgspec.structs.replace(two(version=2).services[0], name="image")
    async with router(mine, two()):
        assert (await she.types("table", "freeze", "chat"))[0] == 0
        ends = [endpoint(A, services=("image",))]
        await publish(mine, msgspec.structs.replace(fleet(endpoints=ends, version=2), services=(other,)))
        await until(lambda: _serves(mine, b"image"))
        code, told = await she.types("table", "unfreeze", "chat")
        assert (code, told["table"]) == (0, None)
        given = await read_all(mine, topics.TABLE_ORDERS)
        assert msgspec.json.decode(given[0].value, type=TableOrder).hold
        assert given[-1].value is None


async def _held(mine: Settings, held: str) -> bool:  # noqa: F811
    return (await newest(mine)).held == held


async def _serves(mine: Settings, service: bytes) -> bool:  # noqa: F811
    return any(record.key == service for record in await read_all(mine, topics.ROUTING_TABLE))
