"""Write the pages, or say which differ."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from tradewind.reference.pages import drift, pages


def main(argv: Sequence[str] | None = None) -> int:
    """Exit status 1 when a page in the folder is not as it would be written now."""
    parser = argparse.ArgumentParser(prog="python -m tradewind.reference", description=__doc__)
    parser.add_argument("folder", type=Path, nargs="?", default=Path("docs/reference"))
    parser.add_argument("--write", action="store_true", help="write the pages instead of checking them")
    args = parser.parse_args(argv)
    if args.write:
        args.folder.mkdir(parents=True, exist_ok=True)
        for name, text in pages(args.folder.parent / "decisions").items():
            (args.folder / name).write_text(text, "utf-8")
        return 0
    if differ := drift(args.folder):
        print(f"not as generated: {', '.join(differ)}; run `make reference`", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
