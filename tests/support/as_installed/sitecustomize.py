"""What the services that tests start find first: only what is installed with Gantry, as in service.

The tests' own packages bring rich; structlog loads it for tracebacks wherever it is, a tenth of each start.
"""

import sys

sys.modules["rich"] = None  # type: ignore[assignment]  # an import of it says that it is not there
