"""What ``workers/storage/trees/base.py`` promises, asked of every tree, on real servers."""
