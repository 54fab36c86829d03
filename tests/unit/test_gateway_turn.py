"""Whose words go out: the newest attempt that speaks; older ones wait while one is asked, and are late afterwards."""

from __future__ import annotations

import asyncio

import pytest
from aiohttp import web

from router_sync.gateway.turn import Moved, Turn

SOON_S = 5.0


async def answer(ended: asyncio.Future[web.StreamResponse]) -> web.StreamResponse:
    return await ended


class Asked:
    """An attempt that was asked to go on, and ends when it is told to."""

    def __init__(self, turn: Turn) -> None:
        self.ends: asyncio.Future[web.StreamResponse] = asyncio.get_running_loop().create_future()
        self.task = asyncio.create_task(answer(self.ends))
        self.moved = asyncio.create_task(turn.moves_to(self.task))


async def speaking() -> tuple[Turn, int]:
    """A turn whose first attempt, at a, speaks."""
    turn = Turn()
    one = turn.begins("a")
    await turn.take(one)
    return turn, one


async def waits(task: asyncio.Task[None]) -> bool:
    await asyncio.sleep(0.01)
    return not task.done()


async def test_while_nobody_is_asked_whoever_speaks_goes_on() -> None:
    turn, one = await speaking()
    assert (turn.at, turn.free) == ("a", True)
    await turn.take(one)
    assert not turn.late(one)


async def test_while_another_is_asked_the_first_waits_and_is_late_when_that_one_speaks() -> None:
    turn, one = await speaking()
    asked = Asked(turn)
    two = turn.begins("b")
    waiting = asyncio.create_task(turn.take(one))
    assert await waits(waiting)
    assert not turn.free
    await turn.take(two)
    with pytest.raises(Moved):
        await asyncio.wait_for(waiting, SOON_S)
    with pytest.raises(Moved):
        await turn.take(one)
    assert await asked.moved
    assert (turn.at, turn.late(one), turn.late(two)) == ("b", True, False)
    assert turn.successor() is asked.task
    assert turn.successor() is None, "handed out once"
    asked.task.cancel()


async def test_when_the_one_that_was_asked_fails_the_first_goes_on_and_there_is_no_successor() -> None:
    turn, one = await speaking()
    asked = Asked(turn)
    turn.begins("b")
    waiting = asyncio.create_task(turn.take(one))
    assert await waits(waiting)
    asked.ends.set_exception(RuntimeError("refused"))
    await asyncio.wait_for(waiting, SOON_S)
    assert not await asked.moved
    assert (turn.at, turn.successor()) == ("a", None)


async def test_an_answer_that_fails_after_its_first_word_is_handed_out_all_the_same() -> None:
    turn, _ = await speaking()
    asked = Asked(turn)
    await asyncio.sleep(0)
    await turn.take(turn.begins("b"))
    asked.ends.set_exception(RuntimeError("broke off"))
    assert await asked.moved
    assert turn.successor() is asked.task


async def test_a_third_may_be_asked_while_the_second_speaks() -> None:
    turn, _ = await speaking()
    first = Asked(turn)
    await asyncio.sleep(0)
    await turn.take(two := turn.begins("b"))
    second = Asked(turn)
    await asyncio.sleep(0)
    first.ends.set_exception(RuntimeError("over"))  # of an answer that nobody waits for any more
    waiting = asyncio.create_task(turn.take(two))
    assert await waits(waiting)
    await turn.take(turn.begins("c"))
    with pytest.raises(Moved):
        await asyncio.wait_for(waiting, SOON_S)
    assert await second.moved
    assert turn.successor() is second.task
    second.task.cancel()


async def test_after_a_break_the_next_attempt_speaks_without_being_waited_for() -> None:
    turn, one = await speaking()
    await turn.take(two := turn.begins("b"))
    assert (turn.at, turn.late(one)) == ("b", True)
    await turn.take(two)


async def test_closing_lets_nobody_wait_and_ends_who_was_asked() -> None:
    turn, one = await speaking()
    asked = Asked(turn)
    waiting = asyncio.create_task(turn.take(one))
    assert await waits(waiting)
    turn.close()
    await asyncio.wait_for(waiting, SOON_S)
    assert not await asked.moved
    assert asked.task.cancelled()
