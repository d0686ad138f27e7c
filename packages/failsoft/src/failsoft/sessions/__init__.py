"""Server-side sessions: one record, read and written by several frameworks."""
