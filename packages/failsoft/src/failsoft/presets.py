"""Ready-made limits for what is attacked in the same way everywhere: log-ins.

Theory of operation. Passwords are guessed in three ways, and each has a limit that the others lack:

- Many passwords for one account, from one address: `per_client` counts the account *and* the address. It can be narrow, because nobody
  else is held up by it.
- Many passwords for one account, from many addresses: `per_account` counts the account alone. It has to be wide: whoever sends wrong
  passwords on purpose uses it up, and locks the account's owner out for as long (a denial of service).
- One password for many accounts, from one address: `per_address` counts the address alone. It has to leave room for all who share one.

An attempt is charged to all three or to none, in one trip to the store. Accounts that do not exist are counted like those that do, so
the limits tell nobody which do.

Rules:

- The account is whatever name was submitted, in one spelling: NFKC and case-folded, as in RFC 8265's case-mapped user names, without blanks
  around it. Only its digest leaves the process.
- A body is read as the framework reads it, and the view reads it all the same.
- All log-in pages of an application count together, whatever their views and routes: an account has one password, not one for each page.
- Without its store, a log-in is refused with 503: guessing without limits is worse than waiting.
"""

import unicodedata
from collections.abc import Awaitable, Callable, Container, Iterable, Sequence
from inspect import isawaitable
from typing import Any, Final

from failsoft.errors import ConfigurationError, OutsideRequest
from failsoft.exchange import current
from failsoft.exchange.decorators import WithArguments
from failsoft.exchange.policy import Target
from failsoft.exchange.signatures import name_of
from failsoft.quota import QuotaLike
from failsoft.ratelimit import Limit, Penalty, hashed
from failsoft.ratelimit.declare import OnOutage
from failsoft.ratelimit.identity import asked

__all__ = ["BREACHES", "login", "submitted"]

_LONGEST: Final = 1024
"""Characters of an account's name that are looked at: no name is as long, and normalising must not be an attack."""

BREACHES: Final = Penalty(after=3, within="10m", block="5m", growth=2.0, most="1h", forget="1d")
"""Who was refused three times within ten minutes and goes on is shut out for five, then ten, at most sixty minutes."""

_Quotas = QuotaLike | Iterable[QuotaLike] | None


def submitted(field: str) -> Callable[[Any], Any]:
    """A function of the request, for ``by=``: the value of a field that is submitted, in a form or in a JSON object.

    It gives None, a missing identity, where there is no such field, or it is no text. What the media type does not call a form is tried
    as JSON.

    Args:
        field: its name.

    Raises:
        ConfigurationError: the name is empty.
    """
    if not isinstance(field, str) or not field:
        raise ConfigurationError(f"submitted({field!r}): must be the name of a field, such as 'username'")

    def value(request: Any) -> str | Awaitable[str | None] | None:
        exchange = current()
        if exchange is None:
            raise OutsideRequest(f"submitted({field!r}) was asked where no request is being served")
        return exchange.facts.submitted(field)

    value.__qualname__ = value.__name__ = f"submitted({field!r})"
    return value


def login(
    account: str | Callable[..., Any] = "username",
    *,
    per_client: _Quotas = "5/minute; 20/hour",
    per_account: _Quotas = "100/hour",
    per_address: _Quotas = "30/minute",
    failures: Container[int] | Callable[[int], bool] | None = None,
    penalty: Penalty | None = BREACHES,
    methods: Iterable[str] | None = ("POST",),
    on_outage: OnOutage = "closed",
    store: str | None = None,
    name: str = "login",
) -> Callable[[Target], Target]:
    """Decorator for the view that takes passwords: limits against guessing them. See the module for how they work together.

    Args:
        account: the field with the account's name, in the form or the JSON object that is submitted; or a function of the request that
            returns the name (sync or async), or None. Without a name, the address stands in for it.
        per_client: attempts on one account from one address; None for no such limit.
        per_account: attempts on one account from anywhere. The default is what OWASP's ASVS 4.0 allows at most (2.2.1: 100 failed
            attempts an hour); None for no such limit.
        per_address: attempts from one address on any account; None for no such limit.
        failures: statuses of a failed log-in, such as ``(401, 403)``, or a function of the status: then only those are charged.
            Default: every attempt is, because a form that failed is often answered with 200, like everything else.
        penalty: what becomes of those who go on after they were refused by `per_client` or `per_address`; None for nothing more. It never
            guards `per_account`, whose owner may not be who goes on.
        methods: those that submit; others, such as the GET of the form, are not charged. None for all.
        on_outage: what the limits do without their store: ``"closed"``, ``"open"`` or ``"local"``.
        store: the name of the store to count in.
        name: what the limits are called. All with the same name and the same quotas count together, on every view.

    Raises:
        ConfigurationError: an argument is wrong, or all the limits are None.
    """
    whose = hashed(_account(account))
    wanted: list[tuple[str, _Quotas, Any, Penalty | None]] = [
        ("", per_client, ("ip", whose), penalty),
        ("-account", per_account, whose, None),
        ("-address", per_address, "ip", penalty),
    ]
    given = None if methods is None else tuple(methods)
    limits = [
        Limit(
            quota,
            by=by,
            shared=f"{name}{suffix or '-client'}",
            name=name + suffix,
            methods=given,
            charge_on=failures,
            penalty=punished,
            on_outage=on_outage,
            store=store,
        )
        for suffix, quota, by, punished in wanted
        if quota is not None
    ]
    if not limits:
        raise ConfigurationError(
            "login() without per_client, per_account and per_address limits nothing: give one of them"
        )

    return _Login(account, limits)


class _Login(WithArguments):
    """What `login` makes."""

    def __init__(self, account: str | Callable[..., Any], limits: Sequence[Limit]) -> None:
        self._account = account
        self._limits = limits
        if callable(account):
            self.bare = (
                f"@login needs parentheses: write @login() above {name_of(account)}. With a function for the account it makes a "
                "decorator, and here that is used as a view."
            )

    def decorate(self, target: Target) -> Target:
        """Put all the limits on `target`."""
        for limit in reversed(self._limits):
            target = limit(target)
        return target

    def __repr__(self) -> str:
        return f"login({self._account!r})"


def _account(source: str | Callable[..., Any]) -> Callable[[Any], Any]:
    """A function of the request that gives the account's name in its one spelling."""
    read = submitted(source) if isinstance(source, str) else source
    if not callable(read):
        raise ConfigurationError(f"account={source!r}: must be the name of a field, or a function of the request")
    try:
        asked(read, "account")
    except ConfigurationError as error:
        raise ConfigurationError(f"{error}. Above a view, write @login()") from None

    def account(request: Any) -> Any:
        found = read(request)
        return _later(found) if isawaitable(found) else _one_spelling(found)

    account.__qualname__ = f"account({getattr(read, '__qualname__', read)})"
    return account


async def _later(found: Awaitable[Any]) -> str | None:
    return _one_spelling(await found)


def _one_spelling(name: Any) -> str | None:
    if name is None:
        return None
    cut = unicodedata.normalize("NFKC", str(name)[:_LONGEST])
    return unicodedata.normalize("NFKC", cut.casefold()).strip()
