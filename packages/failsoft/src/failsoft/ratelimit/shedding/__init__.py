"""Load shedding: refuse some requests at once, so that the others are served in time.

What is in each module: `capacity`, how many may be in flight and who; `gradient`, how that is learned; `waiting`, who waited too long
in front of this process; `criticality`, which requests are refused first; `concern`, all of it in the course of a request.
"""

from failsoft.ratelimit.shedding.capacity import RESERVED, SHARE, Capacity, Permit
from failsoft.ratelimit.shedding.concern import LoadShedder, RouteShedding
from failsoft.ratelimit.shedding.criticality import Criticality, criticality
from failsoft.ratelimit.shedding.waiting import TOLERANCE

__all__ = [
    "RESERVED",
    "SHARE",
    "TOLERANCE",
    "Capacity",
    "Criticality",
    "LoadShedder",
    "Permit",
    "RouteShedding",
    "criticality",
]
