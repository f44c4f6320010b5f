"""What nobody else does: expired waits, lost nodes, retention, a restored database. Idempotent.

Must not import runtimes, the node's side, the face or families; families register their own duties by name.
"""
