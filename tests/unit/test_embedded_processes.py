"""Children are started on the leash, watched, and ended for good."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from streams.contract.errors import Stop
from tradewind.ports import Reserved, free_port, is_free
from tradewind.processes import Child, Kept, News, Patience, Processes, ended_early, last_lines

DEAF = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf', flush=True); time.sleep(600)"
WITH_GRANDCHILD = "import subprocess, time; print(subprocess.Popen(['sleep', '600']).pid, flush=True); time.sleep(600)"


def python(name: str, code: str, folder: Path) -> Child:
    return Child(name, [sys.executable, "-c", code], folder / f"{name}.log")


async def said(child: Child) -> str:
    async with asyncio.timeout(10):
        while (words := child.last_lines()) == "[nothing]":  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    return words


def there(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


async def gone(pid: int, deadline_s: float = 10.0) -> None:
    async with asyncio.timeout(deadline_s):
        while there(pid):  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def test_the_leash_keeps_the_process_id_and_the_exit_code(tmp_path: Path) -> None:
    child = python("one", "import os; print(os.getpid()); raise SystemExit(7)", tmp_path).start()
    assert await child.ended() == 7
    assert child.last_lines() == str(child.pid)
    assert child.died_early
    assert "exit code 7" in str(ended_early(child))


async def test_a_child_does_not_inherit_an_ignored_sigpipe(tmp_path: Path) -> None:
    child = Child("ignored", ["grep", "SigIgn", "/proc/self/status"], tmp_path / "log").start()
    await child.ended()
    assert int(child.last_lines().split()[1], 16) & (1 << (signal.SIGPIPE - 1)) == 0


async def test_a_command_that_cannot_be_run_says_so_in_its_log(tmp_path: Path) -> None:
    child = Child("none", ["/no/such/program"], tmp_path / "log").start()
    assert await child.ended() == 1
    assert "/no/such/program cannot be run" in child.last_lines()


async def test_a_child_that_is_deaf_to_sigterm_is_killed_after_the_deadline(tmp_path: Path) -> None:
    child = python("deaf", DEAF, tmp_path).start()
    assert await said(child) == "deaf"
    await child.stop(deadline_s=0.2)
    assert child.exit_code == -signal.SIGKILL
    assert not child.died_early, "it was asked to end"


async def test_stopping_a_child_ends_what_it_started_too(tmp_path: Path) -> None:
    child = python("parent", WITH_GRANDCHILD, tmp_path).start()
    grandchild = int(await said(child))
    await child.stop()
    await gone(grandchild)


async def test_a_cancelled_stop_kills(tmp_path: Path) -> None:
    child = python("deaf", DEAF, tmp_path).start()
    await said(child)
    stopping = asyncio.create_task(child.stop(deadline_s=60))
    await asyncio.sleep(0)
    stopping.cancel()
    with pytest.raises(asyncio.CancelledError):
        await stopping
    assert child.exit_code == -signal.SIGKILL


async def test_a_child_that_is_gone_can_be_killed_and_stopped_again(tmp_path: Path) -> None:
    child = python("short", "pass", tmp_path)
    child.kill()
    child.start()
    await child.ended()
    child.kill()
    await child.stop()
    assert child.exit_code == 0


def test_a_parent_killed_with_minus_nine_leaves_no_child(tmp_path: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path; from tradewind.processes import Child\n"
        "child = Child('c', ['sleep', '600'], Path(sys.argv[1])).start(); print(child.pid, flush=True); time.sleep(600)"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "log")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        try:
            assert there(pid)
        finally:
            parent.kill()
    asyncio.run(gone(pid))


async def test_processes_wait_for_readiness_and_stop_in_reverse_order(tmp_path: Path) -> None:
    ports = [free_port(), free_port()]
    async with Processes(tmp_path) as run:
        for name, port in zip("ab", ports, strict=True):
            arguments = (str(port), "--bind", "127.0.0.1", "--directory", str(tmp_path))
            await run.start(name, "http.server", *arguments, ready=f"http://127.0.0.1:{port}/")
        assert [child.name for child in run.children] == ["a", "b"]
        assert all(child.running for child in run.children)
        pids = [child.pid for child in run.children]
    assert [child.exit_code for child in run.children] == [-signal.SIGTERM] * 2
    assert not any(there(pid) for pid in pids if pid)
    assert "GET / HTTP/1.1" in (tmp_path / "a.log").read_text()


async def test_a_child_that_ends_before_it_is_ready_is_reported_with_its_last_words(tmp_path: Path) -> None:
    async with Processes(tmp_path) as run:
        with pytest.raises(Stop, match=r"(?s)broken ended early \(exit code 1\).*No module named no_such_module"):
            await run.start("broken", "no_such_module", ready="http://127.0.0.1:9/", deadline_s=10)


async def test_a_child_that_never_gets_ready_is_reported_after_the_deadline(tmp_path: Path) -> None:
    with socket.socket() as mute:  # accepts and never answers
        mute.bind(("127.0.0.1", 0))
        mute.listen()
        async with Processes(tmp_path) as run:
            url = f"http://127.0.0.1:{mute.getsockname()[1]}/"
            with pytest.raises(Stop, match=f"was not ready at {url}"):
                await run.start("mute", "http.server", str(free_port()), ready=url, deadline_s=0.5)
        assert not run.children[0].running


async def test_the_watch_reports_a_child_that_dies_but_not_one_that_may(tmp_path: Path) -> None:
    async with Processes(tmp_path, environ={**os.environ, "PYTHONUNBUFFERED": "1"}) as run:
        first = await run.start("mortal", "http.server", str(free_port()), "--bind", "127.0.0.1", may_die=True)
        second = await run.start("needed", "http.server", str(free_port()), "--bind", "127.0.0.1")
        watch = asyncio.create_task(run.watch())
        assert first.pid
        assert second.pid
        os.kill(first.pid, signal.SIGKILL)
        await first.ended()
        done, _ = await asyncio.wait([watch], timeout=0.3)
        assert not done
        os.kill(second.pid, signal.SIGKILL)
        with pytest.raises(Stop, match=r"needed ended early \(killed by SIGKILL\)"):
            await asyncio.wait_for(watch, 10)


def test_the_last_lines_leave_out_what_says_nothing(tmp_path: Path) -> None:
    log = tmp_path / "log"
    assert last_lines(log) == "[nothing]"
    log.write_text("old\nReason: this\n\tat x.y.Z\n\t... 3 more\n\n")
    assert last_lines(log, count=1) == "Reason: this"
    assert last_lines(log, start=4) == "Reason: this"


def test_a_taken_port_is_passed_over_and_a_free_one_kept() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert not is_free(port)
        assert free_port(port) != port
    assert free_port(port) == port
    assert free_port(port, avoid=(port,)) != port


async def heard(news: list[News], count: int) -> None:
    async with asyncio.timeout(20):
        while len(news) < count:  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def test_a_child_that_is_killed_is_started_again_as_it_was(tmp_path: Path) -> None:
    port, news = free_port(), list[News]()
    async with Processes(tmp_path) as run:
        words = (str(port), "--bind", "127.0.0.1", "--directory", str(tmp_path))
        child = await run.start("server", "http.server", *words, ready=f"http://127.0.0.1:{port}/")
        mortal = await run.start("mortal", "http.server", "0", "--bind", "127.0.0.1", may_die=True)
        first = child.pid
        keeping = asyncio.create_task(run.keep(news.append))
        mortal.crash()
        child.crash()
        await heard(news, 2)
        why = "killed by SIGKILL"
        assert news == [News("server", why, back=False), News("server", why, back=True)]
        assert child.running
        assert child.pid != first
        assert not is_free(port), "it is back when it is ready"
        assert not mortal.running, "its death is part of the play"
        keeping.cancel()
        await asyncio.gather(keeping, return_exceptions=True)
    assert not child.running


async def test_a_child_that_keeps_dying_is_given_up_with_its_last_words(tmp_path: Path) -> None:
    news = list[News]()
    child = python("short", "print('I cannot go on')", tmp_path).start()

    async def again() -> None:
        child.start()
        await child.ended()

    async with Processes(tmp_path) as run, asyncio.timeout(20):
        with pytest.raises(Stop, match=r"(?s)short ended again \(exit code 0\), after 2 restarts.*I cannot go on"):
            await run.keep(news.append, also=[Kept(child, again)], patience=Patience(most=2, pause_s=0.01))
    assert [one.back for one in news] == [False, True, False, True, False]


async def test_a_start_that_fails_counts_as_a_death(tmp_path: Path) -> None:
    news, child = list[News](), python("lost", "pass", tmp_path).start()

    async def again() -> None:
        raise OSError(28, "No space left on device")

    async with Processes(tmp_path) as run, asyncio.timeout(20):
        with pytest.raises(Stop, match=r"after 3 restarts"):
            await run.keep(news.append, also=[Kept(child, again)], patience=Patience(most=3, pause_s=0.01))
    assert [one.why[:17] for one in news] == ["exit code 0", *["not started again"] * 3]


async def test_children_end_together_and_not_one_after_the_other(tmp_path: Path) -> None:
    async with Processes(tmp_path, environ={**os.environ, "PYTHONPATH": str(tmp_path)}) as run:
        (tmp_path / "deaf.py").write_text(DEAF)
        deaf = [await run.start(f"deaf-{number}", "deaf") for number in range(4)]
        for child in deaf:
            assert await said(child) == "deaf"
        began_s = asyncio.get_running_loop().time()
        await run.stop(deadline_s=0.5)
        assert asyncio.get_running_loop().time() - began_s < 1.5
    assert [child.exit_code for child in deaf] == [-signal.SIGKILL] * 4


def test_ports_reserved_by_one_run_are_not_chosen_by_another() -> None:
    preferred = free_port()
    with Reserved() as first:
        ours = first.take(preferred)
        assert ours == preferred
        assert is_free(ours), "nobody listens there yet: a look at the port alone finds it free"
        with Reserved() as second:
            assert second.take(preferred) != ours
            assert first.take(preferred) not in (ours, second.take(preferred))
    with Reserved() as third:
        assert third.take(preferred) == preferred, "a mark goes with its holder"


def test_a_server_can_listen_on_a_reserved_port() -> None:
    with Reserved() as ports, socket.socket() as server:
        server.bind(("127.0.0.1", ports.take()))
        server.listen()
