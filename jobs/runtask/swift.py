"""The one place where this family asks a Swift: may we in, and is there what a job needs?

Every other module gets an answer or an error of the family. Must not import models or HTTP.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from jobs.runtask.asking.places import Place
from jobs.runtask.errors import SwiftRefused
from workers.storage.base import Storage, StorageFailed, Trouble
from workers.vocabulary.errors import AddressRefused
from workers.vocabulary.staging import Store

#: For all questions of one submission together, in seconds (contract page 00).
WITHIN_S: Final = 10.0


def check(store: Store, *, container: str = "", inputs: Sequence[Place] = ()) -> None:
    """Credentials, a container that has to be there ("": none), objects that have to be there.

    SwiftRefused has the Swift's status and reason; AddressRefused when the guard does not let us go there.
    """
    from workers.storage.swift import SwiftStorage  # its SDKs take a while to load: not for every process

    storage = SwiftStorage(store, total_s=WITHIN_S, stall_s=WITHIN_S)
    try:
        if not inputs:  # an object that is there tells all that, too: they are in the named container
            storage.check(container)
        for place in inputs:
            _look(storage, place)
    except StorageFailed as error:
        if error.trouble is Trouble.REFUSED:
            raise AddressRefused(error.message, field="authurl") from None
        raise SwiftRefused(error.message) from None
    finally:
        storage.close()


def _look(storage: Storage, place: Place) -> None:
    try:
        storage.stat(str(place))
    except StorageFailed as error:
        if error.trouble is not Trouble.MISSING:
            raise
        raise SwiftRefused(
            f"{error.message}. Is it not there yet? wait_for_input=<seconds> lets the job wait for it"
        ) from None
