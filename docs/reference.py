"""Writes docs/settings.md out of the options themselves. Run: make pages"""

from pathlib import Path

from failsoft.settings import OPTIONS, Option

PAGE = Path(__file__).with_name("settings.md")

HEAD = """\
# Settings

## About

One structure, validated when the application starts, the same in every framework. A wrong name, type or range is an error that
names the key and where it was given (the variable, the file, the application), what was given, what is accepted, and the nearest right
spelling; each has an id such as `failsoft.E132`, and all mistakes are reported at once. Once there are none, so are settings that are
right by themselves and do not go together, such as sessions without a secret: each with the places of all that were given.

## Where they come from

Each setting from the first that has it:

1. The application: keyword arguments, `app.config["FAILSOFT"]`, Django's `FAILSOFT`, or a `failsoft.Settings`.
2. The environment: `FAILSOFT_STORE` and so on. Lists are JSON, or separated by commas or semicolons. An empty variable counts as not there.
3. A TOML file that `FAILSOFT_CONFIG` names: its `[tool.failsoft]`, or `[failsoft]`, or its top level.
4. The defaults.

A setting beside the mapping, such as `FAILSOFT_LIMITS` in Django's settings or in `app.config`, is an error (`failsoft.E005`): nothing
would read it. A copy of what the environment says is none. Where the mapping has that setting too, both must say the same. In Flask's own
environment `FLASK_FAILSOFT__LIMITS`, with two underscores, is in the mapping.

URLs of stores are checked with the other settings. Files and credentials that they name are looked for when the store is opened.

Durations are seconds (`0.1`), text (`"250ms"`, `"10s"`, `"5m"`, `"2h"`, `"14d"`) or a `timedelta`.

## Reference
"""

TABLE = """
| setting | default | accepted | |
|---|---|---|---|
"""

GROUPS = {
    "The store": ("store", "stores", "prefix", "deadline", "max_connections", "memory_keys", "key_style"),
    "What is limited, and how": (
        *("enabled", "limits", "route_limits", "scopes", "algorithm", "aligned", "on_outage", "deny_cache", "lease"),
        *("exempt_preflights", "outside_request"),
    ),
    "Whom limits count": (*("by", "on_missing", "trusted_proxies", "forwarded_header", "ipv6_prefix", "hash_keys"),),
    "What is said of limits": ("headers", "retry_after_jitter", "degraded_header", "near_limit"),
    "Processes": ("workers", "replicas", "local_share"),
    "Secrets": ("secret", "secret_fallbacks"),
    "Load shedding": ("shed", "shed_min", "shed_max", "criticality", "queue_header"),
    "Sessions": (
        *("sessions", "session_store", "session_idle", "session_absolute", "session_touch", "session_grace"),
        *("session_cap", "session_bytes", "session_encrypt", "session_wait", "session_on_outage"),
        *("session_snapshot", "session_snapshot_keys", "session_import", "session_import_prefix"),
    ),
    "The session's cookie": (
        *("session_cookie", "cookie_secure", "cookie_httponly", "cookie_domain", "cookie_path", "cookie_samesite"),
        "cookie_partitioned",
    ),
}
"""Headings, and what stands below each. Every setting has one place."""


def page() -> str:
    """The whole page."""
    options = {option.name: option for option in OPTIONS}
    placed = [name for names in GROUPS.values() for name in names]
    if sorted(placed) != sorted(options):
        raise ValueError(f"not in one group each: {sorted(set(options).symmetric_difference(placed)) or placed}")
    return HEAD + "".join(
        f"\n### {heading}\n{TABLE}" + "".join(map(_row, (options[name] for name in names)))
        for heading, names in GROUPS.items()
    )


def _row(option: Option) -> str:
    default = f"`{option.default!r}`" if option.default not in (None, ()) else "none"
    return f"| `{option.name}` | {default} | {option.kind.accepts} | {option.doc} |\n"


if __name__ == "__main__":
    PAGE.write_text(page())
