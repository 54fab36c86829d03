"""Reference pages for people, generated from the types they describe, so that neither can run away from the other.

`python -m tradewind.reference --write` writes `docs/reference/*.md`; without `--write` the pages that differ are named,
and the exit status is 1 if there are any.
"""

from tradewind.reference.pages import drift, pages

__all__ = ["drift", "pages"]
