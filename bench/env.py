"""An environment of the bench's own for what it is compared with: `.bench-env`, made from `bench/peers.lock`.

Peers are not dependencies of ours, and some of them pin what we use; so they live apart. The environment is made on
first use (about a minute), again when the lock changes, and is found ready otherwise.
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
HOME = ROOT / ".bench-env"
LOCK = Path(__file__).with_name("peers.lock")


def peers_python() -> Path:
    """The interpreter that has the peers of `peers.lock`. Raises RuntimeError with the installer's last words."""
    python = HOME / "bin" / "python"
    with _alone():
        if _made_from() != _wanted():
            print(f"making {HOME.name} from {LOCK.name} (once)", file=sys.stderr)
            _make(python)
    return python


def _wanted() -> str:
    return f"{sys.version_info.major}.{sys.version_info.minor} {hashlib.sha256(LOCK.read_bytes()).hexdigest()}"


def _made_from() -> str:
    stamp = HOME / "made-from"
    return stamp.read_text() if stamp.exists() else ""


def _make(python: Path) -> None:
    (HOME / "made-from").unlink(missing_ok=True)
    _run(sys.executable, "-m", "venv", "--clear", str(HOME))
    _run(*_installer(python), "--require-hashes", "--requirement", str(LOCK))
    (HOME / "made-from").write_text(_wanted())


def _installer(python: Path) -> list[str]:
    """uv where this environment or the machine has it, because it is ten times as quick; pip otherwise."""
    beside = str(Path(sys.executable).parent)
    if uv := shutil.which("uv", path=beside) or shutil.which("uv"):
        return [uv, "pip", "install", "--quiet", "--python", str(python)]
    return [str(python), "-m", "pip", "install", "--quiet", "--no-deps"]


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        said = (done.stderr or done.stdout).strip()[-800:]
        raise RuntimeError(
            f"{Path(command[0]).name} could not make {HOME.name} (exit code {done.returncode}); it said: {said}\n"
            "Check the network or the package index, then run again: what is half made is made anew."
        )


@contextmanager
def _alone() -> Iterator[None]:
    """Two benches at once take turns."""
    with LOCK.open("rb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


if __name__ == "__main__":
    print(peers_python())
