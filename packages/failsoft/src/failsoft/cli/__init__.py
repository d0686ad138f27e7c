"""The command line: what applies where, what applies to one request, its counters, sessions, and the stores.

Exit status: 0, 1 for findings (a limit that no route leads to, a store that is away, a setting of a server that does harm), 2 for a mistake
in the call. With ``--json`` what is printed is one JSON document; its keys stay as they are from version to version.
"""

from failsoft.cli.commands import add_commands, run
from failsoft.cli.program import main

__all__ = ["add_commands", "main", "run"]
