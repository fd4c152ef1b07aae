"""Models that others made: ``registry.source_of`` finds the source of a name, one module each loads from it."""
