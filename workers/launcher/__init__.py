"""The resident process launcher and guard of a node. Standard library only: see `__main__` for how it runs.

It outlives workers and upgrades, so nothing in this package may import anything else of the project.
"""
