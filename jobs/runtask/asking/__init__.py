"""What clients ask for: from the parameters of a call to what the engine runs. Pure: no database, no HTTP."""
