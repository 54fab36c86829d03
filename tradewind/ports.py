"""Free TCP ports on loopback: the usual one where it is free, else one the system names."""

from __future__ import annotations

import socket
from collections.abc import Container

LOOPBACK = "127.0.0.1"


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
