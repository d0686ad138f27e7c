"""Writes docs/settings.md out of the options themselves. Run: make pages"""

from pathlib import Path

from failsoft.settings import OPTIONS

PAGE = Path(__file__).with_name("settings.md")

HEAD = """\
# Settings

## About

One structure, validated when the application starts, the same in every framework. A wrong name, type or range is an error that
names the key, what was given, what is accepted, and the nearest right spelling; all mistakes are reported at once. So are
settings that are right by themselves and do not go together, such as sessions without a secret.

## Where they come from

Each setting from the first that has it:

1. The application: keyword arguments, `app.config["FAILSOFT"]`, Django's `FAILSOFT`, or a `failsoft.Settings`.
2. The environment: `FAILSOFT_STORE` and so on. Lists are JSON, or separated by commas or semicolons.
3. A TOML file that `FAILSOFT_CONFIG` names: its `[tool.failsoft]`, or `[failsoft]`, or its top level.
4. The defaults.

Durations are seconds (`0.1`), text (`"250ms"`, `"10s"`, `"5m"`, `"2h"`, `"14d"`) or a `timedelta`.

## Reference

| setting | default | accepted | |
|---|---|---|---|
"""


def page() -> str:
    """The whole page."""
    rows = [
        f"| `{option.name}` | {f'`{option.default!r}`' if option.default not in (None, ()) else 'none'} "
        f"| {option.kind.accepts} | {option.doc} |"
        for option in OPTIONS
    ]
    return HEAD + "\n".join(rows) + "\n"


if __name__ == "__main__":
    PAGE.write_text(page())
