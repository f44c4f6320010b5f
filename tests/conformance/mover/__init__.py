"""The mover as a process, between sites of each subject of the trees: what ends and what is left."""
