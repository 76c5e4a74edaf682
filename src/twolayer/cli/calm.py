"""How commands that measure look at the machine before they do."""

from __future__ import annotations

import math
import time

from ..machine import calm
from ..showing import output


class Waiting:
    """So many seconds in all to wait for calm; without any it looks once. To be called before
    anything is timed.
    """

    def __init__(self, seconds: float) -> None:
        if not 0 <= seconds < math.inf:
            raise ValueError(f"wait-calm: expected seconds from 0 on, got {seconds}")
        self.asked = seconds > 0
        self._left, self._over = seconds, False

    def __call__(self) -> None:
        """Wait while something disturbs; what still does then is said once."""
        if self._over:
            return
        begun = time.monotonic()
        found = calm.wait(self._left, output.complain)
        self._left -= time.monotonic() - begun
        self._over = self._left <= 0
        if self._over and found.reasons:
            advice = "" if self.asked else "; --wait-calm 60 waits for calm"
            output.complain(f"{found}: the results will say so{advice}")
