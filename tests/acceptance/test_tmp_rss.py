import threading
from tests.acceptance.test_commands_output import *
def test_x(cluster, account):
    worker, node = cluster.node(), cluster.folder / "n1"
    print()
    for size in (30, 30, 30, 90, 90, 30):
        before = memory_mb(worker)
        script = f"s=100000000; while test $s -lt {100_000_000+size*1000000}; do seq $s $((s+999999)); s=$((s+1000000)); sleep 0.05; done"
        run_id = submit(account.tenant_id, script, mem_mb=64)
        m=[]; d=[]; done=threading.Event()
        def watch():
            while not done.wait(0.02):
                m.append(memory_mb(worker)); d.append(spool_bytes(node, run_id))
        t=threading.Thread(target=watch); t.start()
        wait_final(run_id, timeout_s=100)
        done.set(); t.join()
        print(size*10, "MB", before, max(m), m[-1], "disk", max(d)/MIB)
