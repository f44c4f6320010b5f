"""One attempt in a worker's hands, from its claim to its end.

watch     what agent, keeper and runner tell each other of it
runner    prepare, start, watch, store, finish
telling   what is told of it under its lease: output, ends
storing   its outputs, before its end is told
outcomes  a runtime's result as a state, a reason and a sentence
"""
