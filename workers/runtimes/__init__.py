"""How work is executed on a node: one protocol (``base``), a folder for each kind of work.

    base        the protocol that every runtime keeps; one conformance suite runs over all of them
    rules, folders, machine_lock, fetch     what they do alike
    launched/   processes under a resident launcher: what two runtimes do alike
    process/    commands
    transfer/   batches of file operations, each a process of the mover
    container/  containers
    exec/       commands inside running containers
    engine/     the Docker Engine, below the two: only here is its SDK imported

Runtimes execute; they decide nothing and record nothing. Must not import models or anything of the engine
that uses them: scheduling, runs, tenants, the face, the node's side.
"""
