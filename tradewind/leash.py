"""Becomes one command that the kernel kills when the process that asked for it is gone, however it went.

    python -I -S leash.py PARENT_PID COMMAND [ARGUMENT ...]

A parent that gets `kill -9` cannot tidy up, so the kernel has to: PR_SET_PDEATHSIG is set here, in the child, and
survives the `exec` that follows. Doing it in a file of its own rather than in `preexec_fn` means that no Python runs
between fork and exec of a parent with threads, where a lock held by another thread would hang the child for ever. The
price is one bare interpreter start (about 15 ms); the process id stays the same.

Two things to know. The kernel watches the *thread* that started the command, not its process: start children from
the main thread or one that lives as long. And only the command itself is on the leash, not what it starts in turn.

This file is run by path and imports nothing of ours. Where there is no prctl (not Linux) the command
runs without leash.
"""

import contextlib
import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def main(arguments: list[str]) -> None:
    """Does not come back: becomes the command, or exits with 1 and a sentence on stderr when it cannot be run."""
    parent, command = int(arguments[0]), arguments[1:]
    with contextlib.suppress(AttributeError):  # no prctl on this system
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, ctypes.c_ulong(signal.SIGKILL))
    if os.getppid() != parent:  # it died before the leash was on
        sys.exit(128 + signal.SIGKILL)
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # Python ignores it, and `exec` would hand that down
    try:
        os.execvp(command[0], command)  # noqa: S606 - the caller gives a list, there is no shell to fool
    except OSError as error:
        sys.exit(f"{command[0]} cannot be run: {error}")  # status 1, and the sentence is in the log


if __name__ == "__main__":
    main(sys.argv[1:])
