"""The documented shapes of jobs, for the OpenAPI schema; ``requests``, ``wire`` and ``output`` read and make
them. A test compares the field names both ways. No queries.
"""

from __future__ import annotations

from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from workers.api.runs.serializers import EstimateSerializer, ExplanationReasonSerializer
from workqueue.jobs import requests
from workqueue.jobs.wire import UNKNOWN
from workqueue.models.jobs import Status, Type

TYPES = [kind.name for kind in Type]
STATUSES = [status.name for status in Status]
_NAMES_OF_FOLDERS = {
    "type": "object",
    "additionalProperties": {"type": "array", "items": {"type": "string"}},
}


def _entries(*names: str) -> dict[str, object]:
    integers = {name: {"type": "integer"} for name in names}
    item = {
        "type": "object",
        "properties": {"name": {"type": "string"}, **integers, "escaped": {"type": "boolean"}},
        "required": ["name", *names],
    }
    return {"type": "object", "additionalProperties": {"type": "array", "items": item}}


_ENTRIES = _entries("st_size", "st_mode", "st_mtime")
_LATER = _entries(*("st_mode", "st_nlink", "st_uid", "st_gid", "st_size", "st_atime", "st_mtime", "st_ctime"))


@extend_schema_field({"oneOf": [{"type": "integer"}, {"type": "string"}]})
class WordOrNumber(serializers.JSONField):
    """A name, or the number that stands for it."""


@extend_schema_field({"oneOf": [{"type": "boolean"}, {"type": "string"}]})
class FlagOrWord(serializers.JSONField):
    """true, false, or a word."""


@extend_schema_field({"oneOf": [{"type": "number"}, {"type": "string", "enum": [UNKNOWN]}]})
class KnownOrNot(serializers.JSONField):
    """A number, "N/A" before any."""


@extend_schema_field(_NAMES_OF_FOLDERS)
class Folders(serializers.JSONField):
    """{directory: [names]}"""


@extend_schema_field({"type": "array", "items": _NAMES_OF_FOLDERS, "nullable": True})
class ListOfFolders(serializers.JSONField):
    """[{directory: [names]}], null where there is none."""


@extend_schema_field(_ENTRIES)
class FolderEntries(serializers.JSONField):
    """{directory: [{name, st_size, st_mode, st_mtime}]}"""


@extend_schema_field({**_LATER, "nullable": True})
class LaterFolders(serializers.JSONField):
    """{directory: [{name, st_mode, ...}]}, null where there is none."""


@extend_schema_field(_LATER)
class LaterListing(serializers.JSONField):
    """{directory: [{name, st_mode, ...}]}"""


class TransferOptionsSerializer(serializers.Serializer[object]):
    """The options that are known; others are kept and ignored."""

    depth = serializers.IntegerField(
        required=False, min_value=-1, help_text="LIST: -1 all levels (as without), 1 that directory only."
    )
    overwrite = serializers.BooleanField(required=False)
    checksum = FlagOrWord(
        required=False, help_text="true, or adler32, md5, sha256: read back where nobody can say it."
    )
    timeout = serializers.FloatField(required=False, help_text="Seconds for one element.")
    preserve = serializers.BooleanField(required=False, help_text="Keep times and modes.")
    limit = serializers.IntegerField(required=False, min_value=1, help_text="Bytes per second.")
    nbstreams = serializers.IntegerField(required=False, min_value=1, help_text="Streams for one file.")
    permissions = serializers.CharField(required=False, help_text="Octal, of what is made: 0750.")
    verbosity = serializers.IntegerField(required=False, min_value=0)
    escaped = serializers.BooleanField(
        required=False, help_text=r"The paths have \xNN for bytes that are no UTF-8, and \\ for a backslash."
    )

    def get_fields(self) -> dict[str, serializers.Field]:  # type: ignore[type-arg]
        """``parent`` is a word of the framework."""
        parent = serializers.BooleanField(required=False, help_text="Make missing parents; also: parents.")
        return {**super().get_fields(), "parent": parent}


class TransferListBodySerializer(serializers.Serializer[object]):
    """One path of one site: LIST, REMOVE, MKDIR. Other fields have no effect."""

    src_siteid = serializers.IntegerField()
    src_filepath = serializers.CharField(
        help_text="From the site's root (/a), or below its default path (a, ~/a)."
    )
    max_tries = serializers.IntegerField(
        required=False, min_value=1, max_value=requests.MOST_TRIES, help_text="Of each element; 2 without."
    )
    priority = serializers.IntegerField(
        required=False, min_value=0, max_value=9, help_text="Lower first; 5 without."
    )
    protocol = WordOrNumber(
        required=False,
        help_text="GRIDFTP 0 (without), SSH 1, DUMMY 2 (touches nothing), LOCAL, WEBDAV, S3, SWIFT, XROOTD.",
    )
    extra_opts = TransferOptionsSerializer(required=False)


class TransferRenameBodySerializer(TransferListBodySerializer):
    """Two paths of one site."""

    dst_filepath = serializers.CharField()


class TransferCopyBodySerializer(TransferRenameBodySerializer):
    """From one site to another, or the same."""

    dst_siteid = serializers.IntegerField()


class TransferBodySerializer(TransferListBodySerializer):
    """A job of any type."""

    type = WordOrNumber(help_text="LIST 0, COPY 1, REMOVE 2, RENAME 3, MKDIR 4.")
    dst_siteid = serializers.IntegerField(required=False, help_text="COPY")
    dst_filepath = serializers.CharField(required=False, help_text="COPY, RENAME")


class LaterTransferSerializer(serializers.Serializer[object]):
    """A job with every key."""

    id = serializers.IntegerField()
    user_id = serializers.IntegerField(allow_null=True)
    src_siteid = serializers.IntegerField()
    dst_siteid = serializers.IntegerField(allow_null=True)
    src_filepath = serializers.CharField()
    dst_filepath = serializers.CharField(allow_null=True)
    type = serializers.ChoiceField(choices=TYPES)
    status = serializers.ChoiceField(choices=STATUSES)
    extra_opts = serializers.DictField()
    priority = serializers.IntegerField()
    protocol = serializers.CharField()
    log_uid = serializers.CharField()
    timestamp = serializers.CharField(help_text="Of the last change, UTC, without a zone.")


class TransferSerializer(LaterTransferSerializer):
    """A job; dst_* for COPY and RENAME only."""

    dst_siteid = serializers.IntegerField(required=False)
    dst_filepath = serializers.CharField(required=False)


class _Counts(serializers.Serializer[object]):
    num_elements = serializers.IntegerField()
    num_new = serializers.IntegerField()
    num_submitted = serializers.IntegerField()
    num_running = serializers.IntegerField()
    num_done = serializers.IntegerField()
    num_failed = serializers.IntegerField()


class CountedTransferSerializer(TransferSerializer, _Counts):
    """A job of the list."""


class LaterCountedTransferSerializer(LaterTransferSerializer, _Counts):
    """A job of the list, with every key."""


class MonitoringSerializer(serializers.Serializer[object]):
    """Bytes, bytes/s, seconds."""

    transferred = serializers.IntegerField()
    average = serializers.FloatField()
    instant = serializers.FloatField()
    elapsed = serializers.FloatField()


class _Element(serializers.Serializer[object]):
    id = serializers.IntegerField(help_text="0, 1, 2... within the job.")
    job_id = serializers.IntegerField()
    src_filepath = serializers.CharField()
    size = serializers.IntegerField(allow_null=True)
    max_tries = serializers.IntegerField()
    attempts = serializers.IntegerField(help_text="Ended ones.")
    type = serializers.ChoiceField(choices=TYPES)
    status = serializers.ChoiceField(choices=STATUSES)
    timestamp = serializers.CharField()
    escaped = serializers.BooleanField(required=False, help_text=r"The paths have \xNN for such bytes.")
    listing_count = serializers.IntegerField(
        required=False, help_text="Where a listing of more than 10,000 names is left out of a list."
    )


class TransferElementSerializer(_Element):
    """One file, folder or listing of a job."""

    dst_filepath = serializers.CharField(required=False)
    listing = ListOfFolders(help_text="Of a LIST that is DONE.")


class LaterTransferElementSerializer(_Element):
    """The same, with every key."""

    dst_filepath = serializers.CharField(allow_null=True)
    listing = LaterFolders(help_text="Of a LIST that is DONE.")
    monitoring_info = MonitoringSerializer(allow_null=True)


class _Output(serializers.Serializer[object]):
    jobid = serializers.IntegerField()
    elementid = serializers.IntegerField()
    attempt = serializers.IntegerField(help_text="From 1.")
    type = serializers.ChoiceField(choices=TYPES)
    status = serializers.ChoiceField(choices=[Status.DONE.name, Status.FAILED.name])
    log = serializers.CharField()


class TransferOutputSerializer(_Output):
    """An ended attempt. The listing is there for a LIST that is DONE."""

    listing = Folders(required=False)
    entries = FolderEntries(required=False)


class LaterTransferOutputSerializer(_Output):
    """An ended attempt. The listing is there for a LIST that is DONE."""

    listing = LaterListing(required=False)


class TransferStatusSerializer(serializers.Serializer[object]):
    """A job's status."""

    jobid = serializers.IntegerField()
    status = serializers.ChoiceField(choices=STATUSES)


class TransferCancelSerializer(TransferStatusSerializer):
    """What came of a cancel."""

    cancelled = serializers.BooleanField(help_text="False: it had ended.")


class TransferRetrySerializer(TransferStatusSerializer):
    """What came of a retry."""

    retried = serializers.IntegerField(help_text="How many failed elements go again.")


class TransferElementStatusSerializer(serializers.Serializer[object]):
    """An element's status and progress: bytes, bytes/s, seconds."""

    jobid = serializers.IntegerField()
    elementid = serializers.IntegerField()
    status = serializers.ChoiceField(choices=STATUSES)
    attempts = serializers.IntegerField()
    transferred = KnownOrNot()
    average = KnownOrNot()
    instant = KnownOrNot()
    elapsed = KnownOrNot()


class TransferProgressSerializer(TransferStatusSerializer, _Counts):
    """How far a job is, in bytes and bytes/s; ``transferred`` includes what runs."""

    bytes_total = serializers.IntegerField()
    bytes_done = serializers.IntegerField()
    transferred = serializers.IntegerField()
    instant = serializers.FloatField()


class TransferExplanationSerializer(serializers.Serializer[object]):
    """Why a job is where it is, the strongest reason first."""

    state = serializers.CharField()
    since = serializers.DateTimeField()
    reasons = ExplanationReasonSerializer(many=True)
    position = serializers.IntegerField(allow_null=True)
    estimate = EstimateSerializer(allow_null=True)
