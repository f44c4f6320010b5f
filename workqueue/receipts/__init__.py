"""Receipts: what a finished job did, signed; and a folder checked against one without a database.

    lines      the form of a manifest and its signature. Pure
    manifest   a job's, streamed from the database
    verify     a folder against a manifest. No database

Must not import views.
"""
