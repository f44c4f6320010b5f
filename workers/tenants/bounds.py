"""What bounds that which a tenant's policy opens: lists of images and of folders of the host.

Pure: no Django, no database; families' parsers ask it at submission, workers again before a run starts.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Final

from workers.vocabulary import references
from workers.vocabulary.references import BadReference, Opening


@dataclass(frozen=True)
class Bounds:
    """What bounds that which is open; None = nothing does."""

    images: tuple[str, ...] | None = None
    volume_paths: tuple[str, ...] | None = None
    #: Registries that may be asked at all: entries of ``references.opening``.
    registries: tuple[str, ...] | None = None

    def opening(self, registry: str) -> Opening | None:
        """How a registry, as ``references.host`` writes it, is open; None when it is not."""
        return references.opened((references.ANY,) if self.registries is None else self.registries, registry)

    def registry(self, name: str) -> str:
        """Why a registry, as ``references.host`` writes it, may not be asked; "" when it may."""
        if self.opening(name):
            return ""
        return (
            f"the registry {name} is not open for this tenant: an operator can open it with the policy "
            "registries, or with GANTRY_REGISTRIES for every tenant"
        )

    def image(self, name: str) -> str:
        """Why an image may not be used; "" when it may."""
        try:
            found = references.parse(name)
        except BadReference as error:
            return str(error)
        if closed := self.registry(found.registry):
            return closed
        if self.images is None or references.allows(self.images, found):
            return ""
        return (
            f"image {found} is not among those that this tenant may use: {', '.join(self.images) or 'none'}"
        )

    def volume(self, path: str) -> str:
        """Why a path of the host may not be mounted; "" when it may."""
        if self.volume_paths is None:
            return ""
        parts = PurePosixPath(path).parts
        if ".." not in parts and any(
            parts[: len(top)] == top for top in (PurePosixPath(text).parts for text in self.volume_paths)
        ):
            return ""
        folders = ", ".join(self.volume_paths) or "none"
        return f"{path} is not below a folder that this tenant may mount: {folders}"


#: Nothing is bounded.
NO_BOUNDS: Final = Bounds()


def check_folder(text: str) -> None:
    """ValueError when this is no absolute path."""
    path = PurePosixPath(text)
    if not text.startswith("/") or ".." in path.parts or "\0" in text:
        raise ValueError(f"{text!r} is no absolute path of a folder")
