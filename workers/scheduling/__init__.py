"""Which run goes next and where.

    obstacles    may this node take this shape, and what keeps it from it; pure
    placement    which of the waiting runs a node takes next; pure
    claiming     one look of a node: reads the heads of the queues, has them placed, claims
    passed_over  keeps a node for a run that was passed over too long
    shapes       what runs ask for, as rows and as placement sees them
    reasons      why no node takes a shape now; pure
    explain      why a run is where it is

One definition of "may take" for all of them. Must not import runtimes, the node's side or the face.
"""
