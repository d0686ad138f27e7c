"""What applies where, for people and for their tools: the base of the command line and of start-up audits.

Here is what adapters need: they describe an application (`Description`), and make requests up for it (`Trial`). They import this
when an application starts, so the rest is in modules of its own: `limits` says which limits a route has, `explanation` which apply
to one request, and `counters` how the counters stand that such a request would meet.
"""

from failsoft.inspection.description import GROUP, Description, RouteInfo, describe
from failsoft.inspection.mistakes import mistakes, mistakes_by_settings, unreached
from failsoft.inspection.trial import Trial, Tried

__all__ = [
    "GROUP",
    "Description",
    "RouteInfo",
    "Trial",
    "Tried",
    "describe",
    "mistakes",
    "mistakes_by_settings",
    "unreached",
]
