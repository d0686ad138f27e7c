"""The only code that differs between the synchronous and the asynchronous world: who waits for what, and how.

Both drivers do the same: ask the questions, join, fly, receive; and at the end write what the settlement asks for.
"""

from failsoft.drivers import aio, sync

__all__ = ["aio", "sync"]
