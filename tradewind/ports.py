"""Free TCP ports on loopback: the usual one where it is free, else one the system names, or one further up."""

from __future__ import annotations

import socket
from collections.abc import Container
from types import TracebackType
from typing import Self

LOOPBACK = "127.0.0.1"
_STEP = 200
_STEPS = 20


def free_port(preferred: int | None = None, avoid: Container[int] = ()) -> int:
    """`preferred` when nobody listens there, else a port the system gives, never one of `avoid`.

    Nothing is reserved: between this answer and the use of it somebody else may take the port, so whoever binds it
    still has to expect a refusal.
    """
    if preferred is not None and preferred not in avoid and is_free(preferred):
        return preferred
    while (port := _any_port()) in avoid:
        pass
    return port


class Reserved:
    """Ports that no other process of ours chooses while this is open; a context manager.

    Two runs that start in the same second see the same free ports, seconds before their servers listen there. So each
    port taken is marked by a UDP socket of the same number, which the kernel removes however its holder ends. Our
    servers speak TCP and never meet it; strangers do not look at marks.
    """

    def __init__(self) -> None:
        self._marks: dict[int, socket.socket] = {}

    def take(self, preferred: int | None = None) -> int:
        """`preferred`, or the first free one of those 200, 400, … above it, or any that the system gives."""
        beyond = range(preferred, min(65536, preferred + _STEP * _STEPS), _STEP) if preferred else ()
        for port in beyond:
            if is_free(port) and self._mark(port):
                return port
        for _ in range(_STEPS):
            if self._mark(port := _any_port()):
                break
        return port

    def close(self) -> None:
        """Let others have them again."""
        for mark in self._marks.values():
            mark.close()
        self._marks.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _at: TracebackType | None
    ) -> None:
        self.close()

    def _mark(self, port: int) -> bool:
        mark = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        try:
            mark.bind((LOOPBACK, port))
        except OSError:
            mark.close()
            return False
        self._marks[port] = mark
        return True


def is_free(port: int) -> bool:
    """Whether `port` (1..65535) can be listened on at loopback now."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        # As servers do: connections of yesterday's process that still linger do not make the port taken.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
    return True


def _any_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.bind((LOOPBACK, 0))
        return int(probe.getsockname()[1])
