"""Processes under the resident launcher, for the runtimes whose work is one.

attempts  attempts by name: start, stop, ask, wait, as every such runtime does
client    the worker's side of the launcher
link      starting a launcher, and one connection to it
records   what passes between the two, as typed records
"""
