import pytest
from tests.faults.test_worker_killed import _killed_at_random
@pytest.mark.parametrize("seed", range(8))
def test_loop(cluster, account, shared_folder, seed):
    cluster.env["GANTRY_NODE_LOST_AFTER_S"] = "120"
    try:
        _killed_at_random(cluster, account, shared_folder, deaths=4, seed=1)
    except AssertionError:
        import subprocess
        p = cluster.processes[-1]
        print(cluster.logs()[-12000:])
        import os, time, shutil
        out = subprocess.run(["/tmp/pyspy/bin/py-spy", "dump", "--pid", str(p.pid)], capture_output=True, text=True)
        print(out.stdout[-12000:], out.stderr[-2000:])
        home = cluster.folder/"n1"/"launcher"
        print((home/"launcher.log").read_text()[-3000:])
        os.system(f"ls -la {home}/runs {home}/runs/* | head -80; ps -ef | grep -c sleep; ps aux | grep manage.py")
        raise
