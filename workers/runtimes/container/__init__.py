"""Containers on the node's Docker Engine.

runtime  the protocol, for containers
config   what a container is made of; pure
start    creating and starting, also when the engine's answer was lost
watch    how it ends; events says that something did
track    what this node knows of one attempt, also after the worker's death
output   from the engine's log into the capped files; stream is one connection that follows it
faults   what a failure of the engine means for the attempt
guard    the worker's side of the guard that outlives it
remains  what is left of attempts, and its removal
"""
