"""What sessions ask of a store. Each step is in `scripts` for a server, and here for a table in this process.

Times in answers are whole milliseconds since the epoch, by the clock of whoever keeps the record; generations, and the time before which
none is valid, are whole microseconds.
"""

from failsoft.sessions.operations.fields import NO_FIELDS, Fields
from failsoft.sessions.operations.records import (
    FOUND,
    GONE,
    MOVED,
    RENEWED,
    Create,
    Created,
    Delete,
    Glance,
    Glimpse,
    Load,
    Loaded,
    Look,
    Wait,
    Write,
    Written,
)
from failsoft.sessions.operations.subjects import Check, Enrol, List, Listed, Revoke, RevokeAll

__all__ = [
    "FOUND",
    "GONE",
    "MOVED",
    "NO_FIELDS",
    "RENEWED",
    "Check",
    "Create",
    "Created",
    "Delete",
    "Enrol",
    "Fields",
    "Glance",
    "Glimpse",
    "List",
    "Listed",
    "Load",
    "Loaded",
    "Look",
    "Revoke",
    "RevokeAll",
    "Wait",
    "Write",
    "Written",
]
