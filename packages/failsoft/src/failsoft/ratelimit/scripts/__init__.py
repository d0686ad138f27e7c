"""What servers run: the decision, adjustments, penalties, in Lua.

`meters` and `penalty` are the same in Python; property tests run both against each other.

State, for each limit. But for GCRA it is what `limits` 5.8 keeps for the strategy of the same name, so that either goes on with
what the other counted:

- Fixed window (``f``): the count; the key expires when the window ends.
- GCRA (``g``): the theoretical arrival time, in microseconds since the epoch: the moment at which the bucket is full again. A
  request of cost c passes if that moment, moved on by c emissions, lies at most ``emission * capacity`` ahead of now.
- Sliding window counter (``s``): the present window's count, under a key that lives for two windows; when less than one is left of
  it, the window is over and the count is the previous one's. Then it is renamed to the second key, but only with
  the next charge: what only looks writes nothing. Of the previous count as much counts as the window before still covers.
- Moving window (``m``): a list of the moments at which units were taken, in seconds, the newest first; at most `capacity` of them.
- Penalty (``p``): four numbers: breaches so far, when they are forgotten, how long the last block was, and when it ends or ended.

Time is the server's. A decision writes only once it is known to succeed, but for the breach that a penalty notes.

Numbers stay below 2^53, where doubles are exact; a server writes a double that is a whole number without an exponent.
"""

from failsoft.ratelimit.scripts.corrections import ADJUST, REFUND, RESET
from failsoft.ratelimit.scripts.decisions import BREACHES, LEAN, PEEK, WIDE

__all__ = ["ADJUST", "BREACHES", "LEAN", "PEEK", "REFUND", "RESET", "WIDE"]
