"""From finished trials to a decision: records, front and tables. Imports neither torch nor Ray."""
