"""The storages of sites: trees of files, one package or module per protocol; only here their SDKs.

    base      the protocol of a tree, and what every tree must hold (one conformance suite runs over all)
    parts     names of files that are not whole yet, and writing them where a rename makes them visible
    filling   a file that is written where a rename makes it visible: LOCAL, SFTP, WebDAV, GridFTP
    opening   the tree that a Reach names; which protocols this machine can speak

Must not import models, services, runtimes or families.
"""
