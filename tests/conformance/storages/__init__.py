"""What ``workers/storage/base.py`` promises, asked of every storage, on real servers."""
