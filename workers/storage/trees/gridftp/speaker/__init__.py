"""A process that speaks GridFTP for us; run by its path (``__main__``), standard library only."""
