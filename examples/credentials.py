"""Credentials that change: a token that a sidecar renews in a file."""

from pathlib import Path

# start: provider
import redis

from failsoft import Settings


class TokenFile(redis.CredentialProvider):
    def __init__(self, path):
        self.path = Path(path)

    def get_credentials(self):
        return "limits", self.path.read_text().strip()


settings = Settings(store={"url": "rediss://cache.example", "credentials": TokenFile("/run/secrets/cache-token")})
# end: provider
