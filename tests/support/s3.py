"""S3 of the tests' own: Swift's s3api (swift.py); buckets looked at without our code."""

from __future__ import annotations

from typing import Any

import boto3
from botocore.config import Config

KEY = "test:tester"
SECRET = "testing"


class Bucket:
    """A bucket as boto3 sees it, with no more than the plain calls."""

    def __init__(self, port: int, name: str) -> None:
        self.name = name
        self._client: Any = boto3.client(
            "s3",
            endpoint_url=f"http://127.0.0.1:{port}",
            aws_access_key_id=KEY,
            aws_secret_access_key=SECRET,
            region_name="us-east-1",
            config=Config(
                s3={"addressing_style": "path"},
                proxies={},
                request_checksum_calculation="when_required",
                response_checksum_validation="when_required",
            ),
        )

    def make(self) -> None:
        self._client.create_bucket(Bucket=self.name)

    def put(self, key: str, content: bytes) -> None:
        self._client.put_object(Bucket=self.name, Key=key, Body=content)

    def get(self, key: str) -> bytes | None:
        try:
            found: bytes = self._client.get_object(Bucket=self.name, Key=key)["Body"].read()
        except self._client.exceptions.NoSuchKey:
            return None
        return found

    def keys(self, prefix: str) -> list[str]:
        """All that begin so."""
        pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=self.name, Prefix=prefix)
        return [item["Key"] for page in pages for item in page.get("Contents", ())]

    def uploads(self, prefix: str) -> list[str]:
        """Keys of unfinished uploads."""
        found = self._client.list_multipart_uploads(Bucket=self.name, Prefix=prefix).get("Uploads", ())
        return [item["Key"] for item in found]
