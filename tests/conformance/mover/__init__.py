"""The mover as a process, between sites of each subject of the trees: what ends, what is left, what is told."""
