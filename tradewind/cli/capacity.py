"""`tradewind capacity`: what is planned and carried out of each pool, and an operator's own plan for one."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer

from streams.runtime import clock
from tradewind.cli.drain import By, ordered_where, who
from tradewind.cli.options import AsJson, Bootstrap, Config, Prefix, settled

if TYPE_CHECKING:
    from streams.contract.records import Capacity, CapacityPlan
    from streams.settings import Settings
    from tradewind.hands.capacity import PoolState

app = typer.Typer(no_args_is_help=True, help="See what is planned and carried out of each pool; plan by hand.")


def pool_names(incomplete: str) -> list[str]:
    """Pools of ./tradewind.yaml that begin so, for the shell; none where there is no such file."""
    from router_sync.fleet import load
    from streams.contract.errors import Stop

    with contextlib.suppress(Stop):
        pools = {e.pool for e in load(Path("tradewind.yaml")).endpoints}
        return sorted(pool for pool in pools if pool.startswith(incomplete))
    return []


PoolName = Annotated[
    str, typer.Argument(help="provider/region/zone/instance/market, of the fleet.", autocompletion=pool_names)
]
Wait = Annotated[bool, typer.Option("--wait/--no-wait", help="Until an actuator has answered, ten seconds at most.")]


@app.command()
def show(
    config: Config = None,
    bootstrap_servers: Bootstrap = None,
    topic_prefix: Prefix = None,
    as_json: AsJson = False,
) -> None:
    """Show each pool: what is wanted, ready and starting, what failed, the last plan and whether it was carried out.

    Examples:
      tradewind capacity show
      tradewind capacity show --json | jq '.pools[] | select(.carried_out | not) | [.pool, .capacity.note]'
    """
    from tradewind.hands import capacity

    settings = settled(config, bootstrap_servers=bootstrap_servers, topic_prefix=topic_prefix)
    states = asyncio.run(_pools(settings))
    if as_json:
        print(msgspec.json.encode({"pools": states}).decode())
    else:
        print("\n".join(capacity.lines(states)))


async def _pools(settings: Settings) -> list[PoolState]:
    from tradewind.hands import capacity, kafka

    kafka.hush()
    async with kafka.reader(settings) as consumer:
        return await capacity.pools(consumer, settings, clock.now_s())


@app.command()
def plan(
    pool: PoolName,
    want: Annotated[int, typer.Option("--want", min=0, max=100_000, help="Replicas the pool should have.")],
    reason: Annotated[str, typer.Option("--reason", help="Why; it is said on the topic and by actuators.")] = "",
    for_: Annotated[
        str, typer.Option("--for", metavar="TIME", help="So long no plan of the planner is carried out, as in 1h30m.")
    ] = "1h",
    by: By = None,
    wait: Wait = True,
    config: Config = None,
    bootstrap_servers: Bootstrap = None,
    topic_prefix: Prefix = None,
    as_json: AsJson = False,
) -> None:
    """Plan a pool yourself: it goes before the planner's plans until --for is over. Replicas stay when it ends.

    It is carried out by actuators that act, within their bounds; in a dry run they say what they would do.

    Examples:
      tradewind capacity plan aws/eu-west/eu-west-a/g6.xlarge/on_demand --want 8 --reason "launch at noon" --for 3h
      tradewind capacity plan aws/eu-west/eu-west-a/g6.xlarge/on_demand --want 0 --no-wait --json
    """
    from streams.contract.records import CapacityPlan
    from tradewind.hands.text import duration_s

    now_s = clock.now_s()
    until_s = now_s + duration_s("--for", for_)
    made = CapacityPlan(
        pool=pool, plan_id=f"op-{now_s:.3f}", made_at_s=now_s, want=want, have=0, not_before_s=now_s,
        reason=reason[:2000], by=who(by) or "an operator", until_s=until_s,
    )  # fmt: skip
    settings = ordered_where(config, bootstrap_servers, topic_prefix)
    said = asyncio.run(_given(settings, made, wait=wait))
    _tell(made, said, as_json=as_json, wait=wait)


@app.command()
def release(
    pool: PoolName,
    config: Config = None,
    bootstrap_servers: Bootstrap = None,
    topic_prefix: Prefix = None,
    as_json: AsJson = False,
) -> None:
    """Take a pool's plan back, an operator's too: the planner's next one counts again. Replicas stay as they are.

    Examples:
      tradewind capacity release aws/eu-west/eu-west-a/g6.xlarge/on_demand
    """
    settings = ordered_where(config, bootstrap_servers, topic_prefix)
    asyncio.run(_released(settings, pool))
    if as_json:
        print(msgspec.json.encode({"pool": pool, "released": True}).decode())
    else:
        print(f"{pool} has no plan any more; the planner's next one counts")


async def _given(settings: Settings, made: CapacityPlan, *, wait: bool) -> Capacity | None:
    from tradewind.hands import capacity

    state = capacity.pool_of(await _pools(settings), made.pool)
    capacity.check(state, made.want)
    made = msgspec.structs.replace(made, have=capacity.has(state))
    return await capacity.give(settings, made.pool, made, clock.now_s, wait)


async def _released(settings: Settings, pool: str) -> None:
    from tradewind.hands import capacity, kafka

    kafka.hush()
    await capacity.give(settings, pool, None, clock.now_s, wait=False)


def _tell(made: CapacityPlan, said: Capacity | None, *, as_json: bool, wait: bool) -> None:
    if as_json:
        print(msgspec.json.encode({"plan": made, "capacity": said}).decode())
        return
    from tradewind.hands.text import at

    assert made.until_s is not None
    print(f"{made.pool}: {made.want} wanted by {made.by}, who holds the pool until {at(made.until_s)}"
          + ("" if wait else " (sent; not waited for)"))  # fmt: skip
    if said is not None:
        print(f"  {said.ready} ready, {said.starting} starting; {said.note}")
