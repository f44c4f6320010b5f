"""Which run goes next and where: placement decides (pure), claiming takes, explain tells why one waits.

One definition of "may take" for all three. Must not import runtimes, the node's side or the face.
"""
