"""What a `tradewind up` that runs now notes down for other commands: STATE_DIR/up.json, gone when it ends."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

import msgspec

from tradewind.up.folder import LOCK

NOTE = "up.json"
VERSION = 1


class Process(msgspec.Struct, frozen=True, kw_only=True):
    """One process of a running `up`. `admin_url` answers /healthz, /readyz and /metrics; None for the broker."""

    name: str
    role: str
    pid: int
    admin_url: str | None = None


class Running(msgspec.Struct, frozen=True, kw_only=True):
    """A running `up`. `gateways` is origin to url; `started_at_s` unix seconds."""

    version: int = VERSION
    pid: int
    started_at_s: float
    bootstrap_servers: str
    topic_prefix: str
    fleet: str
    gateways: dict[str, str]
    processes: tuple[Process, ...]


def note(state_dir: Path, running: Running) -> None:
    """Write `running` down, readable by its owner only; whoever reads meanwhile sees the old note or the new one."""
    draft = state_dir / f".{NOTE}.{running.pid}"
    draft.touch(mode=0o600)
    draft.write_bytes(msgspec.json.format(msgspec.json.encode(running), indent=2) + b"\n")
    draft.replace(state_dir / NOTE)


def forget(state_dir: Path) -> None:
    """Take the note away; nothing happens when there is none."""
    (state_dir / NOTE).unlink(missing_ok=True)


def read(state_dir: Path) -> Running | None:
    """The `up` that runs in `state_dir`; None when there is none, its process is gone, or the note is not ours."""
    try:
        running = msgspec.json.decode((state_dir / NOTE).read_bytes(), type=Running)
    except (OSError, msgspec.MsgspecError):
        return None
    ours = running.version == VERSION and _lives(running.pid) and _held(state_dir / LOCK)
    return running if ours else None


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # somebody else's, but there
        return True
    return True


def _held(lock: Path) -> bool:
    """Whether an `up` has its folder locked: another process may have got the number of one that was killed.

    Asked by a shared lock, let go at once, so that askers disturb neither it nor each other. True where there is no
    lock to ask.
    """
    try:
        with lock.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    return False
