"""Lines in a picture, as SVG that reads well on light and on dark pages."""

import math
from collections.abc import Sequence
from html import escape
from typing import NamedTuple

__all__ = ["Line", "plot"]

_WIDTH, _HEIGHT = 640, 320
_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 16, 40, 48
_COLOURS = {"on": "#0b8a7a", "also": "#7a5bc4", "off": "#d0552b"}
_GREY = "#808080"


class Line(NamedTuple):
    """One line: what it is, how it is drawn (``on``, ``also`` or ``off``), and its points."""

    name: str
    kind: str
    points: Sequence[tuple[float, float]]


def plot(title: str, lines: Sequence[Line], *, x: str, y: str, log: bool = False) -> str:
    """The picture.

    Args:
        title: for those who cannot see it, and above it.
        lines: at least one, with points of positive numbers.
        x: what is to the right.
        y: what is up.
        log: up is a factor of ten from tick to tick.
    """
    across = [point[0] for line in lines for point in line.points]
    values = [point[1] for line in lines for point in line.points]
    right = max(across)
    if log:
        low, high = math.floor(math.log10(max(min(values), 0.1))), math.ceil(math.log10(max(values)))
        ticks = [10.0**power for power in range(low, high + 1)]
    else:
        step = _step(max(values))
        low, high = 0, math.ceil(max(values) / step) * step
        ticks = [step * number for number in range(round(high / step) + 1)]

    def at(point: tuple[float, float]) -> tuple[float, float]:
        value = math.log10(max(point[1], 10.0**low)) if log else point[1]
        return (
            _LEFT + point[0] / right * (_WIDTH - _LEFT - _RIGHT),
            _HEIGHT - _BOTTOM - (value - low) / (high - low) * (_HEIGHT - _TOP - _BOTTOM),
        )

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" font-family="sans-serif" '
        f'font-size="12" fill="{_GREY}"><title>{escape(title)}</title>',
        _text(_LEFT, 20, title, size=14),
    ]
    for tick in ticks:
        height = at((0, tick))[1]
        parts.append(f'<path d="M{_LEFT} {height:.1f}H{_WIDTH - _RIGHT}" stroke="{_GREY}" stroke-opacity=".3"/>')
        parts.append(_text(_LEFT - 6, height + 4, f"{tick:,.0f}", anchor="end"))
    parts += [
        _text(at((number, ticks[0]))[0], _HEIGHT - _BOTTOM + 18, str(number), anchor="middle")
        for number in range(math.floor(right) + 1)
    ]
    parts.append(_text((_LEFT + _WIDTH - _RIGHT) / 2, _HEIGHT - 10, x, anchor="middle"))
    parts.append(
        f'<text transform="translate(16 {(_TOP + _HEIGHT - _BOTTOM) / 2}) rotate(-90)" text-anchor="middle">{escape(y)}</text>'
    )
    for number, line in enumerate(lines):
        colour = _COLOURS[line.kind]
        points = " ".join(f"{left:.1f},{height:.1f}" for left, height in map(at, line.points))
        dash = ' stroke-dasharray="6 4"' if line.kind == "off" else ""
        parts.append(f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="2.5"{dash}/>')
        parts += [
            f'<circle cx="{left:.1f}" cy="{height:.1f}" r="3" fill="{colour}"/>'
            for left, height in map(at, line.points)
        ]
        height = _TOP + 14 + 18 * number
        parts.append(f'<path d="M{_LEFT + 12} {height - 4}h24" stroke="{colour}" stroke-width="2.5"{dash}/>')
        parts.append(_text(_LEFT + 42, height, line.name))
    return "\n".join([*parts, "</svg>"]) + "\n"


def _step(value: float) -> float:
    """A round number of which about five make `value`."""
    rough = value / 5
    unit = 10 ** math.floor(math.log10(rough))
    return float(next(factor * unit for factor in (1, 2, 5, 10) if factor * unit >= rough))


def _text(left: float, height: float, text: str, *, size: int = 12, anchor: str = "start") -> str:
    return f'<text x="{left:.1f}" y="{height:.1f}" font-size="{size}" text-anchor="{anchor}">{escape(text)}</text>'
