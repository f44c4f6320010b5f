"""Output of attempts: capture on the node, chunks in the database, reading and following from any host.

    redaction    replaces secrets by ***, also across the border of two pieces
    capture      SpoolReader: what is new in the two output files of a process
    store        the chunk table: insert, delete the middle, size, read
    following    what comes next, as events, without holding a database connection
    answers      parameters and headers of a request -> status, headers, body
    signed_urls  one stream of one run for some days, without a token

Offsets count bytes from the start of a stream as it is stored (after redaction). A jump in the offsets of
stored chunks is output that was left out. Must not import services, claiming, agents or runtimes; only
``store`` and ``following`` touch the database.
"""
