"""Registries are opened by an operator (docs/decisions/0092). What an operator has said so far is kept.

The first tenant gets what it has in a fresh installation. A list of images that spells out registries opens
these, wherever they send, on top of the setting's. Nothing else is opened: docs/operations.md, Upgrade.
"""

from django.conf import settings
from django.db import migrations

from workers.vocabulary import references

FIRST = "default"


def named(images):
    """The registries that patterns for images spell out, but for Docker Hub."""
    for text in images if isinstance(images, list) else ():
        first, slash, _ = str(text).partition("/")
        try:
            if slash and (any(sign in first for sign in ".:") or first == "localhost"):
                yield references.host(first)
        except references.BadReference:
            continue  # a star, or nothing that an image could name


def keep(apps, schema_editor):
    for tenant in apps.get_model("workers", "Tenant").objects.all():
        if tenant.policy.get("registries") is not None:
            continue
        more = sorted(
            host for host in set(named(tenant.policy.get("images")))
            if not references.opened(settings.GANTRY_REGISTRIES, host)
        )
        if tenant.name == FIRST:
            opened = [references.ANY]
        elif more:
            opened = [*settings.GANTRY_REGISTRIES, *(f"{host}={references.ANY}" for host in more)]
        else:
            continue
        tenant.policy = {**tenant.policy, "registries": opened}
        tenant.save(update_fields=["policy"])


class Migration(migrations.Migration):

    dependencies = [
        ('workers', '0011_signing_keys'),
    ]

    operations = [
        migrations.RunPython(keep, migrations.RunPython.noop),
    ]
