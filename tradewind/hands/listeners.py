"""Who listens on a port of this machine, as far as the kernel tells this user (Linux: /proc)."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

PROC = Path("/proc")
_LISTENS = "0A"


def listener(port: int, proc: Path = PROC) -> str | None:
    """The process that listens on TCP `port`, as "name (pid 123)"; None where nobody does, or it may not be seen."""
    inodes = {inode for table in ("tcp", "tcp6") for at, inode in _listening(proc / "net" / table) if at == port}
    return next((_named(process) for process in _processes(proc) if inodes & set(_sockets(process))), None)


def _listening(table: Path) -> Iterator[tuple[int, str]]:
    """Port and inode of each listening socket."""
    with contextlib.suppress(OSError):
        for line in table.read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == _LISTENS:
                yield int(fields[1].rpartition(":")[2], 16), fields[9]


def _processes(proc: Path) -> Iterator[Path]:
    return (folder for folder in proc.iterdir() if folder.name.isdecimal()) if proc.is_dir() else iter(())


def _sockets(process: Path) -> Iterator[str]:
    """Inodes of a process's sockets; none where they may not be seen, or it has ended."""
    with contextlib.suppress(OSError):
        for handle in (process / "fd").iterdir():
            with contextlib.suppress(OSError):
                to = str(handle.readlink())
                if to.startswith("socket:["):
                    yield to[8:-1]


def _named(process: Path) -> str:
    try:
        name = (process / "comm").read_text().strip()
    except OSError:
        name = "a process"
    return f"{name} (pid {process.name})"
