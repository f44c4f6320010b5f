"""The documented shapes of sites, for the OpenAPI schema; ``requests`` and ``shapes`` read and make them.

A test compares the field names both ways. No queries.
"""

from __future__ import annotations

from rest_framework import serializers

from workers.vocabulary.transfers.reach import Protocol
from workqueue.models import Site
from workqueue.sites import requests


class SiteOptionsSerializer(serializers.Serializer[object]):
    """What a protocol needs beside its address."""

    scheme = serializers.ChoiceField(
        choices=["http", "https"], required=False, help_text="WEBDAV, S3, SWIFT: https without"
    )
    auth_url = serializers.CharField(required=False, help_text="SWIFT: where tokens are had")
    region = serializers.CharField(required=False, help_text="S3")


class SiteEndpointSerializer(serializers.Serializer[object]):
    """One server of a site. LOCAL has protocol and path only."""

    protocol = serializers.ChoiceField(choices=[str(item) for item in Protocol], help_text="SSH means SFTP.")
    host = serializers.CharField(required=False, allow_blank=True, help_text="Name or address.")
    port = serializers.IntegerField(
        required=False, min_value=0, max_value=65535, help_text="0 or left out: the protocol's own."
    )
    path = serializers.CharField(
        required=False,
        help_text="Where the site begins there: a folder; S3: bucket[/prefix]; SWIFT: container[/prefix].",
    )
    options = SiteOptionsSerializer(required=False)


class SiteBodySerializer(serializers.Serializer[object]):
    """A site as it is sent. Unknown fields are ignored, null is the same as absent."""

    name = serializers.CharField(max_length=requests.NAME_MOST, help_text="Unique within the tenant.")
    description = serializers.CharField(required=False, allow_blank=True)
    default_path = serializers.CharField(
        required=False, help_text="Where relative paths and ~ begin: / without."
    )
    visibility = serializers.ChoiceField(
        choices=Site.Visibility.values, required=False, help_text="private without; public: operators only."
    )
    endpoints = SiteEndpointSerializer(many=True, help_text="The preferred one first.")
    cas = serializers.ListField(
        child=serializers.CharField(),
        required=False,
        help_text="Certificates (PEM) of the authorities to trust; none = the system's.",
    )
    host_keys = serializers.ListField(
        child=serializers.CharField(),
        required=False,
        help_text='SSH: lines as in known_hosts, or "<type> <base64>". An unknown key is refused.',
    )
    pull_only = serializers.BooleanField(
        required=False, help_text="Operators only: its jobs are for pull workers."
    )


class SiteLimitsSerializer(serializers.Serializer[object]):
    """How much may go on at once; null = the installation's."""

    max_active_in = serializers.IntegerField(
        min_value=1, max_value=10_000, allow_null=True, required=False, help_text="Streams into it."
    )
    max_active_out = serializers.IntegerField(
        min_value=1, max_value=10_000, allow_null=True, required=False, help_text="Streams out of it."
    )
    max_bytes_per_s = serializers.IntegerField(min_value=1, allow_null=True, required=False)


class SiteBanSerializer(serializers.Serializer[object]):
    """cancel: its jobs are cancelled, new ones refused; wait: they wait, new ones are refused; wait_as: they
    wait, new ones are accepted and wait."""

    mode = serializers.ChoiceField(choices=[value for value in Site.Ban.values if value])
    message = serializers.CharField(required=False, allow_blank=True)
    until = serializers.DateTimeField(required=False, allow_null=True, help_text="Null: until it is lifted.")


class SiteCredentialsBodySerializer(serializers.Serializer[object]):
    """As whom the caller is known there. All of it is replaced; it is never shown again."""

    username = serializers.CharField(
        required=False, help_text="Also the access key (S3), account:user (SWIFT)."
    )
    password = serializers.CharField(required=False, help_text="Also the secret key (S3).")
    key = serializers.CharField(required=False, help_text="A private key in PEM or OpenSSH form (SSH).")
    proxy = serializers.CharField(required=False, help_text="Certificate, key and chain in PEM (GRIDFTP).")


class SiteCredentialsSerializer(serializers.Serializer[object]):
    """Which of the caller's credentials are set, and since when."""

    set = serializers.ListField(child=serializers.ChoiceField(choices=["username", *requests.SECRETS]))
    changed_at = serializers.DateTimeField(allow_null=True)


class SiteSerializer(serializers.Serializer[object]):
    """A site; every field is always there."""

    id = serializers.IntegerField()
    name = serializers.CharField()
    description = serializers.CharField()
    default_path = serializers.CharField()
    visibility = serializers.ChoiceField(choices=Site.Visibility.values)
    endpoints = SiteEndpointSerializer(many=True)
    cas = serializers.ListField(child=serializers.CharField())
    host_keys = serializers.ListField(child=serializers.CharField())
    by_operator = serializers.BooleanField(help_text="Its addresses are trusted.")
    pull_only = serializers.BooleanField()
    limits = SiteLimitsSerializer()
    ban = SiteBanSerializer(allow_null=True)
    credentials = SiteCredentialsSerializer(help_text="The caller's own.")
    created_at = serializers.DateTimeField()


class SiteLinkChangeSerializer(serializers.Serializer[object]):
    """One change of a link's streams."""

    at = serializers.DateTimeField()
    to = serializers.IntegerField()
    sentence = serializers.CharField(help_text="Why, for people.")

    def get_fields(self) -> dict[str, serializers.Field]:  # type: ignore[type-arg]
        """``from`` is a word of Python."""
        return {**super().get_fields(), "from": serializers.IntegerField()}


class SiteLinkSerializer(serializers.Serializer[object]):
    """What goes from one site to another at once, and why so much; the latest changes first."""

    target = serializers.IntegerField()
    streams = serializers.IntegerField()
    bytes_per_s = serializers.FloatField(help_text="Of the last window.")
    sentence = serializers.CharField()
    changed_at = serializers.DateTimeField()
    changes = SiteLinkChangeSerializer(many=True)

    def get_fields(self) -> dict[str, serializers.Field]:  # type: ignore[type-arg]
        """``source`` is a word of the framework."""
        return {"source": serializers.IntegerField(), **super().get_fields()}
