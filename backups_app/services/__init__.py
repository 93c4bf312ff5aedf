"""The verbs: claim a row, call the core, record the outcome. Nothing else writes rows."""
