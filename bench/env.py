"""Environments of the bench's own for what it is compared with: `.bench-env` from `bench/peers.lock`, and two more.

Peers are not dependencies of ours, and some of them pin what we use; so they live apart. An environment is made on
first use (about a minute), again when its lock changes, and is found ready otherwise.
"""

from __future__ import annotations

import fcntl
import hashlib
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LOCKS = Path(__file__).parent


def peers_python() -> Path:
    """The interpreter that has the peers of `peers.lock`. Raises RuntimeError with the installer's last words."""
    return _python(ROOT / ".bench-env", LOCKS / "peers.lock")


def gateways_python() -> Path:
    """The interpreter that has the gateways of `litellm.lock`; raises as `peers_python` does."""
    return _python(ROOT / ".bench-env-litellm", LOCKS / "litellm.lock")


def forecasters_python() -> Path:
    """The interpreter that has the forecasters of `forecasters.lock`; raises as `peers_python` does."""
    return _python(ROOT / ".bench-env-forecast", LOCKS / "forecasters.lock")


def _python(home: Path, lock: Path) -> Path:
    python = home / "bin" / "python"
    with _alone(lock):
        if _made_from(home) != _wanted(lock):
            print(f"making {home.name} from {lock.name} (once)", file=sys.stderr)
            _make(home, python, lock)
    return python


def _wanted(lock: Path) -> str:
    return f"{sys.version_info.major}.{sys.version_info.minor} {hashlib.sha256(lock.read_bytes()).hexdigest()}"


def _made_from(home: Path) -> str:
    stamp = home / "made-from"
    return stamp.read_text() if stamp.exists() else ""


def _make(home: Path, python: Path, lock: Path) -> None:
    (home / "made-from").unlink(missing_ok=True)
    _run(home, sys.executable, "-m", "venv", "--clear", str(home))
    _run(home, *_installer(python), "--require-hashes", "--requirement", str(lock))
    (home / ".gitignore").write_text("*\n")
    (home / "made-from").write_text(_wanted(lock))


def _installer(python: Path) -> list[str]:
    """uv where this environment or the machine has it, because it is ten times as quick; pip otherwise."""
    beside = str(Path(sys.executable).parent)
    if uv := shutil.which("uv", path=beside) or shutil.which("uv"):
        return [uv, "pip", "install", "--quiet", "--python", str(python)]
    return [str(python), "-m", "pip", "install", "--quiet", "--no-deps"]


def _run(home: Path, *command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        said = (done.stderr or done.stdout).strip()[-800:]
        raise RuntimeError(
            f"{Path(command[0]).name} could not make {home.name} (exit code {done.returncode}); it said: {said}\n"
            "Check the network or the package index, then run again: what is half made is made anew."
        )


@contextmanager
def _alone(lock: Path) -> Iterator[None]:
    """Two benches at once take turns."""
    with lock.open("rb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        yield


if __name__ == "__main__":
    print(peers_python())
    print(gateways_python())
    print(forecasters_python())
