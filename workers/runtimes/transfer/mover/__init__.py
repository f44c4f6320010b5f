"""The mover: a process that carries out a batch of file operations (``vocabulary.transfers.orders``).

    __main__   orders in, exit code out
    batch      what all elements of a batch share; its threads
    element    one element while it is worked on, and how it ends
    reporting  the report: lines on stdout
    paths      paths as clients write them, and the folders that they need at a target
    listing    LIST: a tree, walked by several threads, told in the order that its job asks for
    spool      names that wait for their turn, on disk
    copying    COPY: what is decided before a byte moves
    filling    the copy of one file
    verifying  checksums: which one, of what, and what was shown by it
    changing   REMOVE, RENAME, MKDIR
    bounds     bytes per second over all threads, free space of the target

Exit codes: 0 when every element has its "end"; 143 after TERM; 75 when an endpoint does not answer any more:
elements without an end were not begun then. Loads what it needs when it needs it: most batches are short.
"""
