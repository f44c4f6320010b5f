"""manage.py verify_manifest FILE FOLDER: is a folder what a job's manifest says? Needs no database."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from workqueue.receipts.verify import BadManifest, keys_of, verify


class Command(BaseCommand):
    help = (
        "Compare a folder with the manifest of a finished job (GET /workqueue/api/v1.0/jobs/{id}/manifest): "
        "its signature, then every file's size and checksum. Ends with 1 when anything differs."
    )
    requires_system_checks = ()

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("manifest", metavar="FILE", help="the manifest")
        parser.add_argument("folder", metavar="FOLDER", help="where the job copied to (its dst_filepath)")
        parser.add_argument("--keys", metavar="FILE", help="the answer of GET /api/v1/keys, kept in a file")
        parser.add_argument(
            "--unsigned", action="store_true", help="do not look at the signature: anybody may have made it"
        )

    def handle(self, *args: Any, **options: Any) -> None:
        if not options["keys"] and not options["unsigned"]:
            raise CommandError(
                "give the public keys with --keys FILE (curl .../api/v1/keys > keys.json), or --unsigned"
            )
        try:
            keys = None if options["unsigned"] else keys_of(Path(options["keys"]).read_text())
        except (BadManifest, OSError, ValueError) as error:
            raise CommandError(f"{options['keys']}: {error}") from None
        try:
            found = verify(Path(options["manifest"]), Path(options["folder"]), keys, self.stderr.write)
        except (BadManifest, OSError, ValueError) as error:
            raise CommandError(f"{options['manifest']}: {error}") from None
        said = f"{found.files} files, {found.checked} compared by checksum"
        if found.problems:
            raise CommandError(f"{said}: {len(found.problems)} differ from the manifest")
        signed = "the signature was not looked at" if keys is None else "the signature is good"
        self.stdout.write(f"{said}: all are as the manifest says; {signed}")
