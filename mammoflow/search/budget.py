"""How long a search may run. No Ray, no MLflow."""

import math
import time

from mammoflow import lake
from mammoflow.lake import Artefact


class Budget:
    """Counts the hours that a search has run over all its starts."""

    def __init__(self, out: Artefact, hours: float | None) -> None:
        """Start the clock where the last start left it.

        Args:
            out: of the search.
            hours: it may run [h]; None: any number.
        """
        self._file = out.file("work", "seconds.json")
        self._before = float(lake.read_json(self._file)["seconds"]) if lake.exists(self._file) else 0.0
        self._began = time.time()
        self._limited = hours is not None
        self.deadline = math.inf if hours is None else self._began + hours * 3600 - self._before
        """When it is to end [s since 1970]."""

    def over(self) -> bool:
        """Tell whether the time is up."""
        return time.time() >= self.deadline

    def note(self) -> None:
        """Keep what has been used so far, for the next start."""
        if self._limited:
            lake.write_json(self._file, {"seconds": self._before + time.time() - self._began})
