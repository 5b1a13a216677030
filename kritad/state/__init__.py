"""What a log entry means: keys, conditions, sessions. Deterministic."""
