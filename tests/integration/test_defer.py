"""Work that may wait, by command and on a real Kafka: handed in, planned, taken back, released, through a restart."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import msgspec
import pytest
from typer.testing import CliRunner

from router_sync import flow as router_flow
from router_sync.keys import load_or_make
from streams.contract import topics
from streams.contract.errors import BadSetting, TradewindError
from streams.contract.records import CarbonIntensity, Release
from streams.runtime.worker import carried
from streams.settings import Settings
from tests.contract.on_kafka import encode, read_all, send, until
from tests.integration.test_hands import Operator, mine, publish  # noqa: F401
from tests.unit.deferred_world import green_fleet
from tradewind.cli import app

pytestmark = pytest.mark.kafka
H = 3600


async def greener_in_two_hours(mine: Settings) -> float:  # noqa: F811
    """Forecasts for the next hours; the start of the green one comes back."""
    hour = int(time.time() // H)
    grams = {0: 500.0, 1: 450.0, 2: 50.0, 3: 400.0}
    await send(
        mine,
        [
            (topics.CARBON_INTENSITY, b"IE/average/forecast", encode(CarbonIntensity(
                grid_zone="IE", kind="average", basis="forecast", carbon_g_per_kwh=value,
                valid_from_s=(hour + n) * H, valid_until_s=(hour + n + 1) * H,
            )))
            for n, value in grams.items()
        ],
    )  # fmt: skip
    return float((hour + 2) * H)


async def words(mine: Settings, name: str) -> list[Release]:  # noqa: F811
    found = [msgspec.json.decode(r.value, type=Release) for r in await read_all(mine, topics.RELEASES)]
    return [word for word in found if word.job == name]


async def refused(she: Operator, *typed: str) -> TradewindError:
    result = await asyncio.to_thread(CliRunner().invoke, app, [*typed, *she._where])
    assert isinstance(result.exception, TradewindError), result.output
    return result.exception


async def test_work_is_handed_in_planned_released_and_taken_back_and_a_restart_forgets_nothing(
    mine: Settings,  # noqa: F811
) -> None:
    she = Operator(mine)
    signer = load_or_make(mine.state_dir / "router.key")
    await publish(mine, green_fleet())
    green_s = await greener_in_two_hours(mine)
    submit = ("defer", "submit", "chat", "--origin", "eu")
    async with carried(router_flow.steps(mine, signer), mine, "router"):
        code, told = await she.types(*submit, "--requests", "1000", "--within", "4h", "--job", "nightly")
        assert (code, told["state"], told["job"]["class"]) == (0, "planned", "nightly")
        assert told["word"]["release_at_s"] == green_s
        assert told["word"]["usd_per_request"] < told["word"]["now_usd_per_request"]
        code, told = await she.types(*submit, "--requests", "10", "--within", "5s", "--job", "at-once")
        assert (code, told["state"]) == (0, "released")
        code, told = await she.types(*submit, "--requests", "10", "--within", "4h", "--class", "nightly")
        third = told["job"]["job"]

        waiting = [one["job"]["job"] for one in (await she.types("defer", "list"))[1]["jobs"]]
        assert sorted(waiting) == sorted(["nightly", third])
        assert len((await she.types("defer", "list", "--all"))[1]["jobs"]) == 3
        assert (await she.types("defer", "cancel", third))[1]["cancelled"]["job"] == third
        assert "was released at" in str(await refused(she, "defer", "cancel", "at-once"))

        assert isinstance(error := await refused(she, "defer", "cancel", "nightl"), BadSetting)
        assert "Did you mean nightly" in str(error)
        again = await refused(she, *submit, "--requests", "1", "--within", "1h", "--job", "nightly")
        assert "A job of that name waits" in str(again)
        live = await refused(she, *submit, "--requests", "1", "--within", "1h", "--class", "interactive")
        assert "Its requests may not wait" in str(live)

    async with carried(router_flow.steps(mine, signer), mine, "router"):
        await until(lambda: _tables(mine, 2))
        assert [(w.released, w.release_at_s) for w in await words(mine, "nightly")] == [(False, green_s)]
        assert [w.released for w in await words(mine, "at-once")] == [True]
        # the green hour is now: a better forecast moves the plan, and the word to begin comes
        now = int(time.time() // H)
        best = CarbonIntensity(
            grid_zone="IE", kind="average", basis="forecast", carbon_g_per_kwh=1.0, valid_from_s=now * H,
            valid_until_s=(now + 1) * H,
        )  # fmt: skip
        await send(mine, [(topics.CARBON_INTENSITY, b"IE/average/forecast", encode(best))])
        await publish(mine, msgspec.structs.replace(green_fleet(), version=2))  # planned anew at once
        await until(lambda: _released(mine, "nightly"))


async def _tables(mine: Settings, count: int) -> bool:  # noqa: F811
    return len(await read_all(mine, topics.ROUTING_TABLE)) >= count


async def _released(mine: Settings, name: str) -> Any:  # noqa: F811
    return any(word.released for word in await words(mine, name))
