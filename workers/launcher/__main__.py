"""Starts the launcher of a node: `python -I -S -X utf8 <this file> CONTROL_FOLDER [options]`.

  --idle-exit SECONDS   end when no run lives and no client is connected for so long (60)
  --isolation on        namespaces of their own for runs, where permitted; off: as root only users of their
                        own; none: runs are processes of this user (on)
  --uid-base N          first uid for runs, as root (GANTRY_UID_BASE or 200000)
  --foreground          do not detach

Or, as `<this file> containers FOLDER`, the guard of a node's containers (containers.py), or as `<this file>
execs FOLDER` the listener of its execs (listener.py).

Returns when the launcher listens (0), or says why it cannot (75: another launcher has this folder).
Standard library only: run by path it makes itself a package, without a look at the rest of the project.
"""

from __future__ import annotations

import importlib
import os
import sys
import types


def _as_package() -> str:
    """Import name of the folder this file is in."""
    if __package__:
        return __package__
    # The folder itself must not be searched: its modules are named for what they do, like the standard ones.
    here = os.path.dirname(os.path.abspath(__file__))
    sys.path[:] = [entry for entry in sys.path if os.path.abspath(entry) != here]
    package = types.ModuleType("gantry_launcher")
    package.__path__ = [here]
    sys.modules[package.__name__] = package
    return package.__name__


if __name__ == "__main__":
    if sys.platform != "linux":
        # Namespaces, /proc, process descriptors, the clock since boot: nothing else has them.
        sys.exit(f"the launcher needs Linux, and this is {sys.platform}: run the node's worker on Linux")
    if sys.argv[1:2] == ["containers"]:
        importlib.import_module(f"{_as_package()}.containers").main(sys.argv[2:])
    elif sys.argv[1:2] == ["execs"]:
        importlib.import_module(f"{_as_package()}.listener").main(sys.argv[2:])
    else:
        importlib.import_module(f"{_as_package()}.process").main(sys.argv[1:])
