"""Trees of sites, what is theirs alone: the conformance suite asks the rest."""
