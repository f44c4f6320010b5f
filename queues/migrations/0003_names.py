"""How a table is called on its page."""

from __future__ import annotations

from django.db import migrations


class Migration(migrations.Migration):
    dependencies = [("queues", "0002_estimates")]

    operations = [
        migrations.AlterModelOptions(
            name="calibration",
            options={
                "verbose_name": "accuracy of estimates",
                "verbose_name_plural": "accuracy of estimates",
            },
        ),
    ]
