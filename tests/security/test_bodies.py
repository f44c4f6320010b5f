"""A body that was cut is nobody's: 400 whichever parser reads it, and nothing is done."""

from __future__ import annotations

from tests.security.wire import exchange, send_and_leave
from tests.support.cluster import Cluster
from tests.support.engine import submit
from tests.support.fixtures import make_account
from tests.support.waiting import wait_until
from workers.models import AuditEntry, Run
from workers.vocabulary.states import State

FORM = "Content-Type: application/x-www-form-urlencoded"
MULTIPART = "Content-Type: multipart/form-data; boundary=b"
PART = b'--b\r\nContent-Disposition: form-data; name="taskId"\r\n\r\n%d'


def test_a_cut_form_kills_nobody(cluster: Cluster) -> None:
    """Catches taskId=188 of which taskId=18 came: task 18 was killed."""
    api, account = cluster.api(threads=2), make_account("default")
    victim = submit(account.tenant_id, "true")
    form, part = b"taskId=%d" % victim, PART % victim
    kill = "POST /v1/tasks/kill HTTP/1.1"
    chunk = b"%x\r\n%s\r\n"
    sent = [
        (f"{kill}\r\n{FORM}\r\nContent-Length: {len(form) + 1}", form),
        (f"{kill}\r\n{MULTIPART}\r\nContent-Length: {len(part) + 20}", part),
        (f"{kill}\r\n{FORM}\r\nTransfer-Encoding: chunked", chunk % (len(form), form)),
        (f"{kill}\r\n{MULTIPART}\r\nTransfer-Encoding: chunked", chunk % (len(part), part)),
    ]
    for head, body in sent:
        send_and_leave(api, account, head, body)
    wait_until(
        lambda: AuditEntry.objects.filter(route="v1/tasks/kill").count() == len(sent), why="all are answered"
    )
    assert set(AuditEntry.objects.values_list("status", flat=True)) == {400}
    assert Run.objects.get().state == State.PENDING
    whole = chunk % (len(form), form) + b"0\r\n\r\n"
    assert exchange(api, account, f"{kill}\r\n{FORM}\r\nTransfer-Encoding: chunked", whole)[0] == 200
    assert Run.objects.get().state == State.CANCELLED
