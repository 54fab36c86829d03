"""Questions are answered in a process beside the loop, and one that fails or hangs costs only its answer."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator

import pytest

from streams.runtime.beside import Beside, Lanes
from streams.runtime.step import Question


@pytest.fixture
async def beside() -> AsyncIterator[Beside]:
    made = Beside(deadline_s=0.5)
    await made.start()
    yield made
    made.stop()


async def test_an_answer_comes_from_another_process_that_stays(beside: Beside) -> None:
    first = await beside.ask(Question(os.getpid, ()))
    assert first not in (None, os.getpid())
    assert await beside.ask(Question(os.getpid, ())) == first


async def test_a_question_that_raises_is_answered_with_none_and_the_process_stays(beside: Beside) -> None:
    first = await beside.ask(Question(os.getpid, ()))
    assert await beside.ask(Question(int, ("seven",))) is None
    assert await beside.ask(Question(os.getpid, ())) == first


async def test_a_question_that_hangs_is_given_up_and_its_process_replaced(beside: Beside) -> None:
    first = await beside.ask(Question(os.getpid, ()))
    began_s = time.monotonic()
    assert await beside.ask(Question(time.sleep, (60,))) is None
    assert time.monotonic() - began_s < 30.0  # of the sixty it would take
    assert await beside.ask(Question(os.getpid, ())) not in (None, first)


async def test_a_process_that_dies_is_replaced(beside: Beside) -> None:
    assert await beside.ask(Question(os._exit, (1,))) is None
    assert await beside.ask(Question(abs, (-3,))) == 3


async def test_long_questions_are_answered_in_another_process_and_hold_up_no_short_one() -> None:
    lanes = Lanes()
    await lanes.start()
    try:
        short = await lanes.ask(Question(os.getpid, ()))
        slow = asyncio.create_task(lanes.ask(Question(time.sleep, (30,), deadline_s=60.0)))
        assert await lanes.ask(Question(os.getpid, ())) == short
        assert not slow.done()
    finally:
        lanes.stop()
        slow.cancel()
    assert short != os.getpid()
