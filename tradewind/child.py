"""One child process on the leash: started, watched, ended for good, and asked what it said last.

Plain `Popen` and a short poll instead of asyncio's own subprocesses: those belong to one event loop, while a broker
is started in one and killed from another (tests), or by a signal handler with no loop at all.

Each child leads a session of its own, so that Ctrl-C in a terminal reaches only the parent, which then stops its
children in order. Should the parent itself be killed, `leash.py` sees to them.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Self

import aiohttp

from streams.contract.errors import Stop

_LEASH = Path(__file__).with_name("leash.py")
_POLL_S = 0.02
_TAIL_BYTES = 8192


class Child:
    """One operating-system process on the leash, with its output appended to `log`.

    `command` is a list of words, `environ` the whole environment of the child (None: that of this process).
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        log: Path,
        *,
        cwd: Path | None = None,
        environ: Mapping[str, str] | None = None,
    ) -> None:
        self.name, self.command, self.log = name, tuple(command), log
        self._cwd, self._environ = cwd, environ
        self._process: subprocess.Popen[bytes] | None = None
        self._asked_to_end = False
        self._swept = False
        self._log_from = 0

    @property
    def pid(self) -> int | None:
        """Process id of the last start; None before the first."""
        return self._process.pid if self._process else None

    @property
    def exit_code(self) -> int | None:
        """As of `Popen`: negative for a signal; None while it runs or before it is started."""
        return self._process.poll() if self._process else None

    @property
    def running(self) -> bool:
        """Whether the process is there now."""
        return self._process is not None and self._process.poll() is None

    @property
    def died_early(self) -> bool:
        """Whether it ended without being asked to by `stop` or `kill`."""
        return self._process is not None and not self.running and not self._asked_to_end

    def start(self) -> Self:
        """Itself, running. Call it from a thread that lives as long as the child should (see `leash.py`)."""
        self.log.parent.mkdir(parents=True, exist_ok=True)
        leashed = [sys.executable, "-I", "-S", str(_LEASH), str(os.getpid()), *self.command]
        with self.log.open("ab") as log:
            self._log_from = log.tell()
            self._process = subprocess.Popen(  # noqa: S603 - a list of words, no shell
                leashed,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=self._cwd,
                env=None if self._environ is None else dict(self._environ),
                start_new_session=True,
            )
        self._asked_to_end = self._swept = False
        return self

    async def ended(self) -> int:
        """Its exit code, as soon as it has ended; waits without limit (use `asyncio.timeout`)."""
        while (code := self.exit_code) is None:  # noqa: ASYNC110 - an Event would tie it to one loop
            await asyncio.sleep(_POLL_S)
        return code

    async def stop(self, deadline_s: float = 5.0) -> None:
        """Ends it: SIGTERM; after `deadline_s` seconds, or when cancelled, SIGKILL for what its session still has."""
        self._asked_to_end = True
        try:
            if self.running and self._process:
                self._process.terminate()
                async with asyncio.timeout(deadline_s):
                    await self.ended()
        except TimeoutError:
            pass  # it had its chance
        finally:
            self.kill()

    def kill(self) -> None:
        """Ends it and its whole session at once, as `kill -9` does; nothing happens if it is gone already."""
        self._asked_to_end = True
        if self._process is None or self._swept:  # once only: later the number may be somebody else's
            return
        self._swept = True
        with contextlib.suppress(ProcessLookupError, PermissionError):  # all gone; on macOS: only zombies left
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def crash(self) -> None:
        """`kill -9` as a stranger does it: the child has then `died_early`, and whoever keeps it starts it again."""
        if self.running and self._process:
            self._process.kill()

    def last_lines(self, count: int = 8) -> str:
        """The end of what it wrote to its log since its last start: see `last_lines`."""
        return last_lines(self.log, count, self._log_from)


async def wait_ready(child: Child, url: str, deadline_s: float) -> None:
    """Comes back when a GET of `url` answers 200; raises `Stop` if `child` ends first or `deadline_s` pass."""
    try:
        async with asyncio.timeout(deadline_s), aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=1.0)) as http:
            while not await _answers_200(http, url):
                if child.died_early:
                    raise ended_early(child)
                await asyncio.sleep(0.05)
    except TimeoutError:
        raise Stop(
            f"{child.name} was not ready at {url} within {deadline_s:g} s",
            f"The machine may be overloaded; the end of {child.log} says: {child.last_lines()}",
        ) from None


async def _answers_200(http: aiohttp.ClientSession, url: str) -> bool:
    try:
        async with http.get(url) as answer:
            return answer.status == 200
    except (aiohttp.ClientError, TimeoutError):
        return False


def ended_early(child: Child) -> Stop:
    """The error that says that `child` ended by itself, how, and what it said last."""
    return Stop(
        f"{child.name} ended early ({how_it_ended(child.exit_code)})",
        f"The end of {child.log} says: {child.last_lines()}",
    )


def how_it_ended(exit_code: int | None) -> str:
    """As people say it: "killed by SIGKILL", "exit code 1"."""
    if exit_code is not None and exit_code < 0:
        return f"killed by {signal.Signals(-exit_code).name}"
    return f"exit code {exit_code}"


def last_lines(log: Path, count: int = 8, start: int = 0) -> str:
    """The last `count` lines of `log` after byte `start` that say something; `[nothing]` if there are none.

    At most 8 KiB are looked at. Blank lines and the frames of Java's stack traces say nothing.
    """
    try:
        with log.open("rb") as file:
            file.seek(max(start, log.stat().st_size - _TAIL_BYTES))
            lines = file.read().decode(errors="replace").splitlines()
    except FileNotFoundError:
        lines = []
    telling = [line for line in lines if line.strip() and not line.startswith(("\tat ", "\t... "))]
    return "\n".join(telling[-count:]) or "[nothing]"
