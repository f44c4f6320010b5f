"""The one place where this family asks a Swift: may we in, and is there what a job needs?

Every other module gets an answer or an error of the family. Must not import models or HTTP.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from jobs.runtask.asking.places import Place
from workers.vocabulary.staging import Store

#: For all questions of one submission together, in seconds (contract page 00).
WITHIN_S: Final = 10.0


def check(store: Store, *, container: str = "", inputs: Sequence[Place] = ()) -> None:
    """Credentials, a container that has to be there ("": none), objects that have to be there.

    SwiftRefused has the Swift's status and reason; AddressRefused when the guard does not let us go there.
    """
