"""Secrets that belong to a run, and callbacks in the usage report."""

import django.db.models.deletion
from django.db import migrations, models

COUNT = """
CREATE FUNCTION gantry_callback_ended() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO workers_usageday AS u
        (tenant_id, day, family, state, writer, callbacks_delivered, callbacks_dead)
    VALUES (NEW.tenant_id, (now() AT TIME ZONE 'UTC')::date, NEW.family, '', pg_backend_pid(),
        (NEW.state = 'delivered')::int, (NEW.state = 'dead')::int)
    ON CONFLICT (tenant_id, day, family, state, writer) DO UPDATE SET
        callbacks_delivered = u.callbacks_delivered + excluded.callbacks_delivered,
        callbacks_dead = u.callbacks_dead + excluded.callbacks_dead;
    RETURN NULL;
END $$;
CREATE TRIGGER gantry_callback_ended AFTER UPDATE OF state ON workers_callback FOR EACH ROW
    WHEN (OLD.state IS DISTINCT FROM NEW.state AND NEW.state IN ('delivered', 'dead'))
    EXECUTE FUNCTION gantry_callback_ended();
"""

UNDO = """
DROP TRIGGER gantry_callback_ended ON workers_callback;
DROP FUNCTION gantry_callback_ended();
"""


class Migration(migrations.Migration):

    dependencies = [
        ('workers', '0007_restore'),
    ]

    operations = [
        migrations.AddField(
            model_name='secret',
            name='run',
            field=models.ForeignKey(db_index=False, null=True, on_delete=django.db.models.deletion.CASCADE, to='workers.run'),
        ),
        migrations.AddField(
            model_name='usageday',
            name='callbacks_dead',
            field=models.BigIntegerField(db_default=0),
        ),
        migrations.AddField(
            model_name='usageday',
            name='callbacks_delivered',
            field=models.BigIntegerField(db_default=0),
        ),
        migrations.AddIndex(
            model_name='secret',
            index=models.Index(condition=models.Q(('run__isnull', False)), fields=['run'], name='secret_of_run'),
        ),
        migrations.RunSQL(COUNT, UNDO),
    ]
