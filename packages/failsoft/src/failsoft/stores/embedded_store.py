"""The store behind ``embedded://``: a `RedisStore` on a private server that lives as long as somebody uses it."""

from typing import Any

from failsoft.stores.embedded import attach
from failsoft.stores.redis import RedisStore

__all__ = ["EmbeddedStore"]


class EmbeddedStore(RedisStore):
    """Operations on a private Valkey, shared by all processes of this user on this machine that name the same place.

    It uses the server from the moment it is made until it is closed or its process ends.

    Args:
        url: ``embedded://``, ``embedded://name`` or ``embedded:///absolute/path``.
        options: as for `RedisStore`.

    Raises:
        ConfigurationError: the server cannot be had; the message says why, and has the install line if a package is missing.
    """

    def __init__(self, url: str, **options: Any) -> None:
        self.attachment = attach(url)
        try:
            super().__init__(self.attachment.url, **options)
        except BaseException:
            self.attachment.release()  # the server would live as long as this process
            raise

    def close(self) -> None:
        """Let go of every connection and of the server, which ends when nobody else uses it."""
        super().close()
        self.attachment.release()
