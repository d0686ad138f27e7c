"""Certificates, and a Redis that speaks TLS: the Valkey of the other tests was built without."""

import datetime
import os
import shutil
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import trustme

from tests.servers import Valkey

__all__ = ["Authority", "TlsServer", "redis_binary"]


def redis_binary() -> str:
    """The path of redis-server. Where there is none the test is skipped, except in CI, where it fails."""
    binary = shutil.which("redis-server")
    if binary is None:
        reason = "needs redis-server: apt-get install redis-server"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    return binary


class Authority:
    """Somebody who is trusted, and what they certify. Files are in PEM.

    Args:
        directory: where files go.

    Attributes:
        path: of the authority's own certificate.
    """

    def __init__(self, directory: Path) -> None:
        self._ca = trustme.CA()
        self._directory = directory
        directory.mkdir(parents=True, exist_ok=True)
        self.path = str(directory / "ca.pem")
        self._ca.cert_pem.write_to_path(self.path)

    def certify(
        self, *names: str, file: str = "server", expired: bool = False, password: bytes | None = None
    ) -> tuple[str, str]:
        """The paths of a certificate for `names` and of its key."""
        certificate = str(self._directory / f"{file}.pem")
        key = str(self._directory / f"{file}-key.pem")
        validity: dict[str, Any] = {}
        if expired:
            now = datetime.datetime.now(datetime.UTC)
            day = datetime.timedelta(days=1)
            validity = {"not_before": now - 3 * day, "not_after": now - day}
        issued = self._ca.issue_cert(*names, **validity)
        issued.private_key_pem.write_to_path(key)
        if password is not None:
            from cryptography.hazmat.primitives import serialization

            secret = serialization.load_pem_private_key(issued.private_key_pem.bytes(), None)
            encrypted = secret.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.BestAvailableEncryption(password),
            )
            Path(key).write_bytes(encrypted)
        Path(certificate).write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
        return certificate, key


class TlsServer(Valkey):
    """A Redis with TLS on its TCP port; its unix socket is for administration, without TLS.

    Args:
        authority: certifies the server, and its clients if they need a certificate.
        options: further arguments for the server.
        names: for which the server's certificate is.
        expired: whether that is over.
        clients: whether clients need a certificate.
        password: what administration needs to get in, if the options ask for it.
    """

    def __init__(
        self,
        authority: Authority,
        *options: str,
        names: tuple[str, ...] = ("127.0.0.1", "localhost"),
        expired: bool = False,
        clients: bool = False,
        password: str | None = None,
    ) -> None:
        self._binary = redis_binary()
        super().__init__(password=password)
        certificate, key = authority.certify(*names, expired=expired)
        self.options = (
            "--port", "0",
            "--tls-port", str(self.port),
            "--tls-cert-file", certificate,
            "--tls-key-file", key,
            "--tls-ca-cert-file", authority.path,
            "--tls-auth-clients", "yes" if clients else "no",
            *options,
        )  # fmt: skip
        self.authority = authority

    @property
    def url(self) -> str:
        """Of the TCP port, with the authority that certifies it."""
        return f"rediss://127.0.0.1:{self.port}/0?tls_ca={self.authority.path}"

    def start(self) -> "TlsServer":
        """Start it, and wait until it answers."""
        with patch("tests.servers.get_binary_path", lambda: self._binary):
            super().start()
        return self
