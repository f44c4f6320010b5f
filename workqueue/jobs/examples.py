"""The seed's own examples, for the OpenAPI document and for tests. Source: seed 002, contract page 40."""

from __future__ import annotations

from typing import Any, Final

STAMP: Final = "2012-03-21T13:35:00.000000"
_JOB_HEAD: Final[dict[str, Any]] = {"id": 1, "user_id": 123, "src_siteid": 12}
_JOB_TAIL: Final[dict[str, Any]] = {
    "status": "SUBMITTED",
    "extra_opts": {},
    "priority": 5,
    "protocol": "GRIDFTP",
    "log_uid": "somelonghash",
    "timestamp": STAMP,
}
JOB_EXAMPLE: Final[dict[str, Any]] = {
    "id": 12345,
    "user_id": 123,
    "src_siteid": 13,
    "dst_siteid": 15,
    "src_filepath": "~/file1.txt",
    "dst_filepath": "~/file2.txt",
    "type": "COPY",
    **_JOB_TAIL,
    "status": "DONE",
}
COUNTS_EXAMPLE: Final = {
    "num_elements": 2,
    "num_new": 0,
    "num_submitted": 0,
    "num_running": 0,
    "num_done": 2,
    "num_failed": 0,
}
ELEMENT_EXAMPLE: Final[dict[str, Any]] = {
    "id": 1,
    "job_id": 12345,
    "src_filepath": "~/file1.txt",
    "dst_filepath": "~/file2.txt",
    "size": 123354523,
    "max_tries": 2,
    "attempts": 1,
    "type": "COPY",
    "status": "DONE",
    "timestamp": STAMP,
    "listing": None,
}
LIST_ELEMENT_EXAMPLE: Final[dict[str, Any]] = {
    "id": 0,
    "job_id": 12,
    "src_filepath": "root",
    "size": None,
    "max_tries": 2,
    "attempts": 1,
    "type": "LIST",
    "status": "DONE",
    "timestamp": STAMP,
    "listing": [{"root": ["file1", "file2"]}],
}
LIST_OUTPUT_EXAMPLE: Final[dict[str, Any]] = {
    "jobid": 12,
    "elementid": 0,
    "attempt": 1,
    "type": "LIST",
    "status": "DONE",
    "log": "The output from the list command run on the worker",
    "listing": {"root": ["file1", "file2"]},
    "entries": {
        "root": [
            {"name": "file1", "st_size": 10, "st_mode": 33188, "st_mtime": 1332336900},
            {"name": "file2", "st_size": 20, "st_mode": 33188, "st_mtime": 1332336900},
        ]
    },
}
OUTPUT_EXAMPLE: Final[dict[str, Any]] = {
    "jobid": 12,
    "elementid": 1,
    "attempt": 2,
    "type": "COPY",
    "status": "DONE",
    "log": "The output from the copy command run on the worker",
}
FAILED_EXAMPLE: Final[dict[str, Any]] = {**OUTPUT_EXAMPLE, "attempt": 1, "status": "FAILED"}
_FILE: Final[dict[str, Any]] = {
    "st_mode": 33188,
    "st_nlink": 1,
    "st_uid": 1000,
    "st_gid": 1000,
    "st_size": 10,
    "st_atime": 1332336900,
    "st_mtime": 1332336900,
    "st_ctime": 1332336900,
}
LATER_LISTING_EXAMPLE: Final = {"root": [{"name": "file1", **_FILE}, {"name": "file2", **_FILE}]}
LATER_LIST_OUTPUT_EXAMPLE: Final = {
    **{name: value for name, value in LIST_OUTPUT_EXAMPLE.items() if name != "entries"},
    "listing": LATER_LISTING_EXAMPLE,
}
LATER_ELEMENT_EXAMPLE: Final = {
    **ELEMENT_EXAMPLE,
    "monitoring_info": {"transferred": 123354523, "average": 2.5e7, "instant": 2.6e7, "elapsed": 4.9},
}
LATER_LIST_ELEMENT_EXAMPLE: Final = {
    **LIST_ELEMENT_EXAMPLE,
    "dst_filepath": None,
    "listing": LATER_LISTING_EXAMPLE,
    "monitoring_info": None,
}
EXPLANATION_EXAMPLE: Final[dict[str, Any]] = {
    "state": "SUBMITTED",
    "since": "2026-11-22T10:00:00.000000Z",
    "reasons": [
        {
            "code": "banned",
            "message": "site 13 is banned: disk is being replaced",
            "need": None,
            "free": None,
            "quota": None,
            "blocked_by": [],
            "remedy": "wait until an operator lifts the ban",
        }
    ],
    "position": None,
    "estimate": None,
}
#: What the seed sends, by the last part of the path.
BODIES: Final[dict[str, dict[str, Any]]] = {
    "jobs": {"src_siteid": 12, "src_filepath": "somefile", "type": "0"},
    "list": {"src_siteid": 12, "src_filepath": "somefile"},
    "copy": {
        "src_siteid": 12,
        "dst_siteid": 14,
        "src_filepath": "somefile",
        "dst_filepath": "someotherfile",
    },
    "remove": {"src_siteid": 12, "src_filepath": "somefile"},
    "rename": {"src_siteid": 12, "src_filepath": "somefile", "dst_filepath": "someotherfile"},
    "mkdir": {"src_siteid": 12, "src_filepath": "~/somedir"},
}


def registered(name: str, *, later: bool = False) -> dict[str, Any]:
    """What the seed answers to a registration."""
    sent = BODIES[name]
    site: dict[str, Any] = {"dst_siteid": sent.get("dst_siteid", 12)}
    path: dict[str, Any] = {"dst_filepath": sent.get("dst_filepath")}
    if "dst_filepath" not in sent:
        site, path = ({"dst_siteid": None}, path) if later else ({}, {})
    kind = "LIST" if name == "jobs" else name.upper()
    return {**_JOB_HEAD, **site, "src_filepath": sent["src_filepath"], **path, "type": kind, **_JOB_TAIL}
