"""What becomes of a run: transitions, the only writer of its state, and what is written while it is held.

Must not import scheduling, runtimes, the node's side or the face.
"""
