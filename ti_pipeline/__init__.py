"""From tagged pictures to the best textual-inversion embedding: a declarative Dagster project."""
