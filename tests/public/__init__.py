"""What other systems got wrong, by their public bug reports: inputs as data, one file a subject."""
