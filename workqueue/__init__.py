"""The workqueue family: file operations at and between sites (contract page 40, seed 002)."""
