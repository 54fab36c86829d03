"""HiGHS as a solver that says nothing."""

from __future__ import annotations

import highspy


class Quiet(highspy.Highs):  # type: ignore[misc]
    """HiGHS greets on standard output while it sets up its callbacks; by then it has been told not to."""

    def enableCallbacks(self) -> None:  # noqa: N802  (HiGHS' name)
        self.setOptionValue("output_flag", False)
        super().enableCallbacks()
