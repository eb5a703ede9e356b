"""Edits as appended events in a database, and edits.jsonl beside it."""
