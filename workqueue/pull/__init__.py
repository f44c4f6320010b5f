"""Pull workers: the original's own worker protocol (contract page 40; its document omits it).

tokens     the signed claim of one element, which authorises its reports
claiming   what such a worker may have, handed out under a lease
wire       the documented shapes of what it gets. Pure
bodies     its reports, parsed as a stream
reporting  entering them
views      the calls
"""
