"""TLS: whom to trust, who we are, and the one context that all connections of a store share.

A context takes up to 55 ms to build, so there is one for all stores with the same options, built when the URL is read: a
file that is missing or wrong is noticed then. Connections look at the files' times and sizes before they use it. A
certificate that was renewed on disk is taken without a restart; files that are wrong only while they are being
replaced leave the context that there is.

Defaults are Python's (`ssl.create_default_context`): the certificate and the host name are verified. The lowest version
is TLS 1.2 (RFC 8996 deprecates what is older), and renegotiation is refused, since no server needs it.
"""

import logging
import os
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from failsoft.errors import ConfigurationError
from failsoft.settings.urls import StoreMistake

if TYPE_CHECKING:
    import ssl
else:
    try:
        import ssl
    except ImportError:  # Python can be built without it
        ssl = None

__all__ = ["MINIMA", "VERIFY", "Tls", "TlsOptions", "tls_of"]

_log = logging.getLogger("failsoft.stores")

VERIFY = ("full", "ca", "none")
"""What is verified: the certificate and the host name, the certificate alone, nothing."""

MINIMA = ("1.2", "1.3")
"""The lowest version of TLS that is spoken."""


_CURES = {
    "tls_ca": "give a file or a directory of certificates in PEM that this process may read",
    "tls_certificate": "give a file in PEM that this process may read",
    "tls_key": "give the certificate's key, in PEM, in a file that this process may read",
    "tls_key_password": "give the password of the key",
}


@dataclass(frozen=True, slots=True)
class TlsOptions:
    """What a URL says about TLS.

    Attributes:
        ca: PEM file or directory of those who are trusted; None for the system's.
        certificate: PEM file with our certificate, and those between it and one who is trusted.
        key: PEM file of its key; None where that is in the same file.
        key_password: of the key.
        server_name: what the server's certificate must be for; None for the host.
        verify: one of `VERIFY`.
        minimum: one of `MINIMA`.
    """

    ca: str | None = None
    certificate: str | None = None
    key: str | None = None
    key_password: str | None = field(default=None, repr=False)
    server_name: str | None = None
    verify: str = "full"
    minimum: str = "1.2"


class Tls:
    """The context of those options. One for a process: see `tls_of`.

    Raises:
        ConfigurationError: a file cannot be read or is not what it should be; the message names the option.
    """

    def __init__(self, options: TlsOptions) -> None:
        if ssl is None:
            raise ConfigurationError("A store with TLS needs a Python that was built with OpenSSL.")
        self.options = options
        self._seen = self._look()
        self._context = _build(options)

    def __repr__(self) -> str:
        return f"Tls({self.options!r})"

    def wrap(self, sock: Any, host: str) -> Any:
        """`sock` with TLS over it, after the handshake; its timeout is for the whole of that."""
        return self.context().wrap_socket(sock, server_hostname=self.options.server_name or host)

    def context(self) -> "ssl.SSLContext":
        """The context, anew if a file has changed. Takes microseconds if none has."""
        # Without a lock: a child could be forked while somebody has it, and building one twice does no harm.
        seen = self._look()
        # gevent replaces the class; a socket of a context that is older than that blocks every greenlet.
        if seen != self._seen or type(self._context) is not ssl.SSLContext:
            try:
                self._context = _build(self.options)
            except ConfigurationError as error:
                _log.warning("certificates have changed, and the former ones stay in use: %s", error)
            self._seen = seen
        return self._context

    def _look(self) -> tuple[Any, ...]:
        """What tells one state of the files from another."""
        options = self.options
        return tuple(_state(path) for path in (options.ca, options.certificate, options.key) if path is not None)


@lru_cache(maxsize=64)
def tls_of(options: TlsOptions) -> Tls:
    """The one `Tls` of this process with these options."""
    return Tls(options)


def _state(path: str) -> tuple[int, int, int] | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino


def _build(options: TlsOptions) -> "ssl.SSLContext":
    for name, path in (("tls_ca", options.ca), ("tls_certificate", options.certificate), ("tls_key", options.key)):
        if path is not None:
            _check_readable(name, path)
    try:
        if options.ca is None:
            context = ssl.create_default_context()
        elif os.path.isdir(options.ca):
            context = ssl.create_default_context(capath=options.ca)
        else:
            context = ssl.create_default_context(cafile=options.ca)
    except (ssl.SSLError, ValueError):
        raise _wrong("tls_ca", f"{options.ca!r} holds no certificates in PEM") from None
    if options.certificate is not None:
        _load_certificate(context, options, options.certificate)
    context.minimum_version = ssl.TLSVersion.TLSv1_3 if options.minimum == "1.3" else ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION
    if options.verify != "full":
        context.check_hostname = False
    if options.verify == "none":
        context.verify_mode = ssl.CERT_NONE
    return context


def _load_certificate(context: "ssl.SSLContext", options: TlsOptions, certificate: str) -> None:
    asked: list[None] = []

    def password() -> str:
        # Without a function OpenSSL asks whoever sits at the terminal, and the start hangs.
        asked.append(None)
        return options.key_password or ""

    try:
        context.load_cert_chain(certificate, options.key, password)
    except (ssl.SSLError, ValueError, OSError) as error:
        where = "tls_certificate" if options.key is None else "tls_key"
        if getattr(error, "reason", None) == "KEY_VALUES_MISMATCH":
            cause = f"the key is not that of the certificate {certificate!r}"
        elif asked:
            where = "tls_key_password"
            cause = "the key does not open with it" if options.key_password else "the key is encrypted, and needs it"
        else:
            cause = f"{(options.key or certificate)!r} with {certificate!r} is no certificate and key in PEM"
        raise _wrong(where, cause) from None


def _check_readable(name: str, path: str) -> None:
    try:
        if os.path.isdir(path) and name == "tls_ca":
            os.listdir(path)
        else:
            with open(path, "rb"):
                pass
    except (OSError, ValueError) as error:  # a ValueError for a NUL in the path
        said = getattr(error, "strerror", None) or type(error).__name__
        raise _wrong(name, f"{path!r} cannot be read ({said})") from None


def _wrong(name: str, cause: str) -> StoreMistake:
    return StoreMistake(f"is wrong: {cause}", _CURES[name], name)
