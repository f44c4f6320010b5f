"""S3: boto3, path-style, over connections that the guard has seen.

    tree      the Tree: keys for paths, what a folder is
    client    one account at one server; what its refusals are
    writing   a file as one object or as an upload of many parts; its completion makes it visible
    marks     a small object that leads to an upload, and tells attempts of each other
    copying   copies by the server, and renames by them

An upload of many parts is found again by a small object that holds its id, beside the target under the name
that other storages give a part: a list of uploads would not tell whose an upload is.
"""

from workers.storage.trees.s3.tree import S3Tree
from workers.vocabulary.transfers.reach import Reach


def open_tree(reach: Reach, streams: int) -> S3Tree:
    return S3Tree(reach, streams)


def missing() -> str:
    """All that it needs is installed with the project."""
    return ""


__all__ = ["S3Tree", "missing", "open_tree"]
