"""Limits, retention and usage of each tenant, and the audit log.

The counters are kept by triggers, so that no statement that moves a run can forget them, and each connection
counts in rows of its own, so that none waits for another (docs/decisions/0040).
"""

from django.db import migrations, models

COUNT = """
CREATE FUNCTION gantry_count(which bigint, delta bigint) RETURNS void LANGUAGE sql AS $$
    INSERT INTO workers_tenantload AS l (tenant_id, writer, waiting) VALUES (which, pg_backend_pid(), delta)
    ON CONFLICT (tenant_id, writer) DO UPDATE SET waiting = l.waiting + excluded.waiting
$$;

CREATE FUNCTION gantry_run_added() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO workers_tenantload AS l (tenant_id, writer, waiting) VALUES (NEW.tenant_id, pg_backend_pid(), 1)
    ON CONFLICT (tenant_id, writer) DO UPDATE SET waiting = l.waiting + 1;
    RETURN NULL;
END $$;

CREATE FUNCTION gantry_run_removed() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM gantry_count(OLD.tenant_id, -1);
    RETURN NULL;
END $$;

CREATE FUNCTION gantry_run_moved() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF OLD.state = 'PENDING' THEN
        PERFORM gantry_count(NEW.tenant_id, -1);
    ELSIF NEW.state = 'PENDING' THEN
        PERFORM gantry_count(NEW.tenant_id, 1);
    END IF;
    IF NEW.finished_at IS NOT NULL THEN
        INSERT INTO workers_usageday AS u (tenant_id, day, family, state, writer, runs)
        VALUES (NEW.tenant_id, (NEW.finished_at AT TIME ZONE 'UTC')::date, NEW.family, NEW.state,
            pg_backend_pid(), 1)
        ON CONFLICT (tenant_id, day, family, state, writer) DO UPDATE SET runs = u.runs + 1;
    END IF;
    RETURN NULL;
END $$;

CREATE FUNCTION gantry_attempt_ended() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO workers_usageday AS u
        (tenant_id, day, family, state, writer, attempts, cpu_ms, mem_mb_s, log_bytes)
    SELECT r.tenant_id, (NEW.finished_at AT TIME ZONE 'UTC')::date, r.family, NEW.state, pg_backend_pid(), 1,
        (t.seconds * s.cpu_m)::bigint, (t.seconds * s.mem_mb)::bigint, NEW.log_bytes
    FROM workers_run r JOIN workers_shape s ON s.id = r.shape_id,
        LATERAL (SELECT coalesce(greatest(0, extract(epoch FROM NEW.finished_at - NEW.started_at)), 0)) AS t(seconds)
    WHERE r.id = NEW.run_id
    ON CONFLICT (tenant_id, day, family, state, writer) DO UPDATE SET attempts = u.attempts + 1,
        cpu_ms = u.cpu_ms + excluded.cpu_ms, mem_mb_s = u.mem_mb_s + excluded.mem_mb_s,
        log_bytes = u.log_bytes + excluded.log_bytes;
    RETURN NULL;
END $$;

CREATE TRIGGER gantry_run_added AFTER INSERT ON workers_run FOR EACH ROW
    WHEN (NEW.state = 'PENDING') EXECUTE FUNCTION gantry_run_added();
CREATE TRIGGER gantry_run_removed AFTER DELETE ON workers_run FOR EACH ROW
    WHEN (OLD.state = 'PENDING') EXECUTE FUNCTION gantry_run_removed();
CREATE TRIGGER gantry_run_moved AFTER UPDATE OF state ON workers_run FOR EACH ROW
    WHEN (OLD.state IS DISTINCT FROM NEW.state
        AND (OLD.state = 'PENDING' OR NEW.state = 'PENDING' OR NEW.finished_at IS NOT NULL))
    EXECUTE FUNCTION gantry_run_moved();
CREATE TRIGGER gantry_attempt_ended AFTER UPDATE OF finished_at ON workers_attempt FOR EACH ROW
    WHEN (OLD.finished_at IS NULL AND NEW.finished_at IS NOT NULL) EXECUTE FUNCTION gantry_attempt_ended();

-- Few and small rows that are updated all the time: leave room for their next versions.
ALTER TABLE workers_tenantload SET (fillfactor = 40, autovacuum_vacuum_scale_factor = 0,
    autovacuum_vacuum_threshold = 2000);
ALTER TABLE workers_usageday SET (fillfactor = 40);

-- What waits already; creating the triggers has locked the table against changes until this commits.
INSERT INTO workers_tenantload (tenant_id, writer, waiting)
    SELECT tenant_id, 0, count(*) FROM workers_run WHERE state = 'PENDING' GROUP BY tenant_id;
INSERT INTO workers_usageday
        (tenant_id, day, family, state, writer, runs, attempts, cpu_ms, mem_mb_s, log_bytes)
    SELECT tenant_id, day, family, state, 0, sum(runs), sum(attempts), sum(cpu_ms), sum(mem_mb_s), sum(log_bytes)
    FROM (
        SELECT tenant_id, (finished_at AT TIME ZONE 'UTC')::date AS day, family, state, count(*) AS runs,
            0 AS attempts, 0::numeric AS cpu_ms, 0::numeric AS mem_mb_s, 0::numeric AS log_bytes
        FROM workers_run WHERE finished_at IS NOT NULL GROUP BY 1, 2, 3, 4
      UNION ALL
        SELECT r.tenant_id, (a.finished_at AT TIME ZONE 'UTC')::date, r.family, a.state, 0, count(*),
            sum(coalesce(greatest(0, extract(epoch FROM a.finished_at - a.started_at)), 0) * s.cpu_m),
            sum(coalesce(greatest(0, extract(epoch FROM a.finished_at - a.started_at)), 0) * s.mem_mb),
            sum(a.log_bytes)
        FROM workers_attempt a JOIN workers_run r ON r.id = a.run_id JOIN workers_shape s ON s.id = r.shape_id
        WHERE a.finished_at IS NOT NULL GROUP BY 1, 2, 3, 4
    ) past GROUP BY 1, 2, 3, 4;

CREATE FUNCTION gantry_audit_stays() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'DELETE' AND current_setting('gantry.pruning', true) = 'on' THEN
        RETURN OLD;
    END IF;
    RAISE EXCEPTION 'the audit log is append only';
END $$;
CREATE TRIGGER gantry_audit_stays BEFORE UPDATE OR DELETE ON workers_auditentry FOR EACH ROW
    EXECUTE FUNCTION gantry_audit_stays();
"""

UNDO = """
DROP TRIGGER gantry_audit_stays ON workers_auditentry;
DROP TRIGGER gantry_attempt_ended ON workers_attempt;
DROP TRIGGER gantry_run_moved ON workers_run;
DROP TRIGGER gantry_run_removed ON workers_run;
DROP TRIGGER gantry_run_added ON workers_run;
DROP FUNCTION gantry_audit_stays(), gantry_attempt_ended(), gantry_run_moved(), gantry_run_removed(),
    gantry_run_added(), gantry_count(bigint, bigint);
"""


class Migration(migrations.Migration):

    dependencies = [("workers", "0002_callbacks")]

    operations = [
        migrations.CreateModel(
            name='AuditEntry',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('at', models.DateTimeField()),
                ('user_name', models.CharField(blank=True, max_length=150)),
                ('token_prefix', models.CharField(blank=True, max_length=12)),
                ('via', models.CharField(blank=True, max_length=8)),
                ('peer', models.CharField(blank=True, max_length=64)),
                ('tenant_id', models.BigIntegerField(null=True)),
                ('tenant_name', models.CharField(blank=True, max_length=64)),
                ('method', models.CharField(max_length=16)),
                ('route', models.CharField(max_length=255)),
                ('about', models.JSONField(default=dict)),
                ('status', models.SmallIntegerField()),
                ('request_id', models.CharField(max_length=128)),
            ],
            options={
                'verbose_name': 'audit entry',
                'verbose_name_plural': 'audit entries',
            },
        ),
        migrations.CreateModel(
            name='TenantLoad',
            fields=[
                ('pk', models.CompositePrimaryKey('tenant_id', 'writer', blank=True, editable=False, primary_key=True, serialize=False)),
                ('tenant_id', models.BigIntegerField()),
                ('writer', models.IntegerField()),
                ('waiting', models.BigIntegerField()),
            ],
        ),
        migrations.CreateModel(
            name='UsageDay',
            fields=[
                ('pk', models.CompositePrimaryKey('tenant_id', 'day', 'family', 'state', 'writer', blank=True, editable=False, primary_key=True, serialize=False)),
                ('tenant_id', models.BigIntegerField()),
                ('day', models.DateField()),
                ('family', models.CharField(max_length=16)),
                ('state', models.CharField(max_length=10)),
                ('writer', models.IntegerField()),
                ('runs', models.BigIntegerField(db_default=0)),
                ('attempts', models.BigIntegerField(db_default=0)),
                ('cpu_ms', models.BigIntegerField(db_default=0)),
                ('mem_mb_s', models.BigIntegerField(db_default=0)),
                ('log_bytes', models.BigIntegerField(db_default=0)),
            ],
        ),
        migrations.RemoveIndex(
            model_name='run',
            name='run_ended',
        ),
        migrations.AddField(
            model_name='tenant',
            name='limits',
            field=models.JSONField(blank=True, db_default={}, default=dict),
        ),
        migrations.AddField(
            model_name='tenant',
            name='retention',
            field=models.JSONField(blank=True, db_default={}, default=dict),
        ),
        migrations.AddIndex(
            model_name='run',
            index=models.Index(condition=models.Q(('finished_at__isnull', False)), fields=['tenant', 'family', 'finished_at'], name='run_ended_of'),
        ),
        migrations.AddIndex(
            model_name='auditentry',
            index=models.Index(fields=['at'], name='audit_at'),
        ),
        migrations.AddIndex(
            model_name='auditentry',
            index=models.Index(fields=['tenant_id', 'id'], name='audit_of_tenant'),
        ),
        migrations.AddIndex(
            model_name='usageday',
            index=models.Index(fields=['day'], name='usage_day'),
        ),
        migrations.RunSQL(COUNT, UNDO),
    ]
