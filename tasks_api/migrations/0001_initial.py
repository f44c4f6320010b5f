from django.db import migrations


class Migration(migrations.Migration):
    initial = True

    dependencies = [("workers", "0001_initial")]

    operations = [
        migrations.CreateModel(
            name="Task",
            fields=[],
            options={"verbose_name": "task", "proxy": True, "indexes": [], "constraints": []},
            bases=("workers.run",),
        ),
    ]
