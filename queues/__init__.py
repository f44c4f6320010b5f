"""The queues family (seed 003): requests for resources wait in order until capacity suffices, then are told.

Contract: page 50. An entry is no run: nothing is executed, so the engine's scheduling has no part in it.
"""
