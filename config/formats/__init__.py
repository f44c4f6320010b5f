"""How operators' pages write times; Django looks here for the language (FORMAT_MODULE_PATH)."""
