"""The cache of the broker's jars, with a fetcher that needs no network."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import io
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import requests.exceptions
from jgo.maven import PythonResolver

from streams.contract.errors import Missing
from tradewind.embedded import jars
from tradewind.embedded.jars import Jar, default_cache, ensure_jars, listed, require_room, wrong_jars
from tradewind.embedded.maven import from_maven
from tradewind.embedded.progress import shown_on, silent

CONTENTS = {"a-1.jar": b"first" * 1000, "b-2.jar": b"second" * 1000}


def jar(coordinate: str, content: bytes) -> Jar:
    return Jar(coordinate=coordinate, sha256=hashlib.sha256(content).hexdigest(), size=len(content))


TWO = (jar("g:a:1", CONTENTS["a-1.jar"]), jar("g:b:2", CONTENTS["b-2.jar"]))


class Shelf:
    """A fetcher that has what it is given, and remembers what it was asked for."""

    def __init__(self, contents: dict[str, bytes] = CONTENTS) -> None:
        self.contents, self.asked = contents, list[str]()

    def __call__(self, wanted: Jar, folder: Path, on_bytes: Callable[[int], None]) -> Path:
        self.asked.append(wanted.name)
        assert not list(folder.iterdir()), "each jar comes into an empty folder"
        path = folder / wanted.name
        path.write_bytes(self.contents[wanted.name])
        on_bytes(len(self.contents[wanted.name]))
        return path


def test_an_empty_cache_is_filled_and_a_full_one_left_alone(tmp_path: Path) -> None:
    shelf = Shelf()
    paths = ensure_jars(tmp_path / "cache", TWO, shelf, silent)
    assert [path.read_bytes() for path in paths] == list(CONTENTS.values())
    assert ensure_jars(tmp_path / "cache", TWO, shelf, silent) == paths
    assert shelf.asked == ["a-1.jar", "b-2.jar"]


@pytest.mark.parametrize("damage", [b"", CONTENTS["b-2.jar"][:-1], b"X" * len(CONTENTS["b-2.jar"])])
def test_a_half_finished_or_changed_jar_is_fetched_again(tmp_path: Path, damage: bytes) -> None:
    ensure_jars(tmp_path, TWO, Shelf(), silent)
    (tmp_path / "b-2.jar").write_bytes(damage)
    again = Shelf()
    ensure_jars(tmp_path, TWO, again, silent)
    assert again.asked == ["b-2.jar"]
    assert wrong_jars(tmp_path, TWO) == []


def test_a_jar_that_comes_with_other_contents_is_refused_and_not_kept(tmp_path: Path) -> None:
    with pytest.raises(Missing, match="g:b:2 came with other contents"):
        ensure_jars(tmp_path, TWO, Shelf({**CONTENTS, "b-2.jar": b"evil"}), silent)
    assert not (tmp_path / "b-2.jar").exists()
    assert list(tmp_path.glob("fresh-*")) == []


def test_after_an_interruption_only_the_jars_that_are_still_missing_are_fetched(tmp_path: Path) -> None:
    def interrupted(wanted: Jar, folder: Path, on_bytes: Callable[[int], None]) -> Path:
        if wanted.name == "b-2.jar":
            raise KeyboardInterrupt
        return Shelf()(wanted, folder, on_bytes)

    with pytest.raises(KeyboardInterrupt):
        ensure_jars(tmp_path, TWO, interrupted, silent)
    (tmp_path / "fresh-killed").mkdir()  # as kill -9 would leave it
    shelf = Shelf()
    ensure_jars(tmp_path, TWO, shelf, silent)
    assert shelf.asked == ["b-2.jar"]
    assert list(tmp_path.glob("fresh-*")) == []


def test_two_at_once_take_turns_and_fetch_each_jar_once(tmp_path: Path) -> None:
    shelf, said = Shelf(), list[str]()
    waiting = threading.Event()

    def progress(name: str, _done: int, _total: int) -> None:
        said.append(name)
        waiting.set()

    with (tmp_path / ".lock").open("a") as held:  # another process is at it
        fcntl.flock(held, fcntl.LOCK_EX)
        second = threading.Thread(target=ensure_jars, args=(tmp_path, TWO, shelf, progress))
        second.start()
        assert waiting.wait(10)
        assert said == ["waiting for another Tradewind that fetches them"]
        for name, content in CONTENTS.items():
            (tmp_path / name).write_bytes(content)
    second.join(10)
    assert not second.is_alive()
    assert shelf.asked == []


def test_a_full_disk_and_a_folder_that_cannot_be_written_are_said_with_the_remedy(tmp_path: Path) -> None:
    def full(_wanted: Jar, _folder: Path, _on_bytes: Callable[[int], None]) -> Path:
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(Missing, match="The disk filled up") as filled:
        ensure_jars(tmp_path, TWO, full, silent)
    assert "Make room" in filled.value.remedy
    (tmp_path / "file").touch()
    with pytest.raises(Missing, match="cannot be written") as unwritable:
        ensure_jars(tmp_path / "file" / "cache", TWO, Shelf(), silent)
    assert "XDG_CACHE_HOME" in unwritable.value.remedy


def test_a_disk_with_too_little_room_is_refused_beforehand(tmp_path: Path) -> None:
    with pytest.raises(Missing, match="MiB are needed") as error:
        require_room(tmp_path, 2**60)
    assert "--bootstrap-servers" in error.value.remedy


def test_without_network_the_error_names_the_ways_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tries = []

    def unreachable(_resolver: PythonResolver, artifact: object) -> Path:
        tries.append(artifact)
        raise requests.exceptions.ConnectionError("no route")

    monkeypatch.setattr(PythonResolver, "download", unreachable)
    with pytest.raises(Missing, match="g:a:1 could not be fetched from Maven") as error:
        ensure_jars(tmp_path, TWO, from_maven(), silent)
    assert len(tries) == 2
    for way_out in ("HTTPS_PROXY", "cache", "--bootstrap-servers"):
        assert way_out in error.value.remedy


def test_progress_counts_bytes_over_all_jars(tmp_path: Path) -> None:
    told: list[tuple[str, int, int]] = []
    ensure_jars(tmp_path, TWO, Shelf(), lambda *piece: told.append(piece))
    total = sum(jar.size for jar in TWO)
    assert told[-1] == ("b-2.jar", total, total)
    assert [done for _, done, _ in told] == sorted(done for _, done, _ in told)


def test_progress_off_a_terminal_is_a_line_every_tenth_and_a_warm_cache_is_silent() -> None:
    stream = io.StringIO()
    with shown_on(stream) as progress:
        assert stream.getvalue() == ""
        for done in range(1001):
            progress("a.jar", done * 1_000, 1_000_000)
    assert len(stream.getvalue().splitlines()) == 11


def test_progress_on_a_terminal_is_a_bar_and_a_warm_cache_is_silent() -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    stream = Terminal()
    with shown_on(stream):
        pass
    assert stream.getvalue() == ""
    with shown_on(stream) as progress:
        progress("a.jar", 500_000, 1_000_000)
    assert "Fetching Apache Kafka" in stream.getvalue()


def test_the_committed_list_is_whole() -> None:
    found = listed()
    names = [jar.name for jar in found.jars]
    assert len(set(names)) == len(names) == 45
    assert f"kafka_2.13-{found.kafka}.jar" in names
    assert f"kafka-clients-{found.kafka}.jar" in names, "a bill of materials must not drag the clients elsewhere"
    assert all(len(jar.sha256) == 64 and jar.size > 0 for jar in found.jars)


def test_the_cache_follows_xdg_only_where_it_is_an_absolute_path() -> None:
    tail = f"tradewind/kafka-{listed().kafka}"
    assert default_cache({"XDG_CACHE_HOME": "/x"}, Path("/home/u")) == Path("/x") / tail
    assert default_cache({"XDG_CACHE_HOME": "x"}, Path("/home/u")) == Path("/home/u/.cache") / tail
    assert default_cache({}, Path("/home/u")) == Path("/home/u/.cache") / tail


def test_a_warm_cache_needs_neither_lock_nor_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ensure_jars(tmp_path, TWO, Shelf(), silent)
    monkeypatch.setattr(jars, "ROOM_BYTES", 2**60)
    assert len(ensure_jars(tmp_path, TWO, Shelf({}), silent)) == 2
