"""``failsoft explain``, ``peek``, ``reset`` and ``refund``: one request, and the counters that it would meet."""

from collections.abc import Callable, Sequence
from typing import Any

from failsoft.cli.report import Report, limit_data, path_of, place, span
from failsoft.errors import FailsoftError
from failsoft.inspection import Description, Trial
from failsoft.inspection.counters import Standing, peek, refund, reset
from failsoft.inspection.explanation import Explained, Explanation, explain
from failsoft.ratelimit import Penalty

__all__ = ["explained", "peeked", "refunded", "was_reset"]

_Fields = dict[str, Any]


def explained(description: Description, trial: Trial, *, late: str | None, ask: bool) -> Report:
    """What would apply to the request, why the rest would not, and what is left.

    Args:
        description: of the application.
        trial: the request.
        late: what ``late(...)`` identities would be.
        ask: whether to ask the store what is left.
    """
    explanation = explain(description, trial, late=late)
    applying = [one for one in explanation.limits if one.applies is not False]
    standings = peek(description.runtime, applying) if ask else []
    left = {(one.explained.limit.store, one.explained.key): one for one in standings}
    lines = _head(explanation)
    if explanation.criticality is not None:
        lines.append(f"criticality {explanation.criticality}")
    for one in applying:
        lines += ["", *_entry(one), *_standing(left.get((one.limit.store, one.key)))]
    others = [one for one in explanation.limits if one.applies is False]
    lines += ["", "does not apply:"] if others else []
    lines += [f"  {one.limit.quota} by {one.limit.by}, from {_source(one)}: {one.why}" for one in others]
    verdict = _verdict(applying, standings)
    lines += _troubles(standings)
    if ask or verdict["outcome"] != "unknown":
        lines += ["", _verdict_line(verdict)]
    data = {
        **_head_data(explanation),
        "criticality": explanation.criticality,
        "limits": [_data(one, left.get((one.limit.store, one.key))) for one in explanation.limits],
        "verdict": verdict,
    }
    return Report(lines, data, 1 if any(one.trouble and _blocking(description, one) for one in standings) else 0)


def peeked(description: Description, trial: Trial, *, late: str | None, name: str | None) -> Report:
    """What is left of each limit."""
    explanation, chosen = _chosen(description, trial, late, name)
    return _outcome(explanation, chosen, peek(description.runtime, chosen), [])


def refunded(description: Description, trial: Trial, *, late: str | None, name: str | None, units: int) -> Report:
    """Give back units of each limit."""
    explanation, chosen = _chosen(description, trial, late, name)
    runtime = description.runtime
    chosen = [one for one in chosen if one.line is None or not isinstance(one.line.rule, Penalty)]
    return _outcome(explanation, chosen, refund(runtime, chosen, units), _memory_of(description))


def was_reset(
    description: Description, trial: Trial, *, late: str | None, name: str | None, confirm: Callable[[str], bool]
) -> Report:
    """Forget what each limit has counted, if `confirm` says so."""
    explanation, chosen = _chosen(description, trial, late, name)
    keys = sorted({one.key for one in chosen if one.key is not None})
    if keys and not confirm("\n".join([*keys, f"Forget {'this' if len(keys) == 1 else f'these {len(keys)}'}?"])):
        return Report([*_head(explanation), "", "nothing was changed"], _head_data(explanation) | {"limits": []}, 1)
    return _outcome(explanation, chosen, reset(description.runtime, chosen), _memory_of(description))


def _chosen(
    description: Description, trial: Trial, late: str | None, name: str | None
) -> tuple[Explanation, list[Explained]]:
    explanation = explain(description, trial, late=late)
    applying = [one for one in explanation.limits if one.applies is not False]
    chosen = [one for one in applying if name is None or name in _names(one)]
    if name is not None and not chosen:
        names = dict.fromkeys(part for one in applying for part in _names(one) if part)
        raise FailsoftError(
            f"no limit {name!r} applies to this request; there are: {', '.join(names) or 'none'} (failsoft explain says why)"
        )
    return explanation, chosen


def _names(one: Explained) -> tuple[str | None, ...]:
    return one.limit.name, one.limit.declared, one.limit.source


def _outcome(
    explanation: Explanation, chosen: Sequence[Explained], standings: Sequence[Standing], notes: Sequence[str]
) -> Report:
    found = {id(one.explained): one for one in standings}
    # One bucket that is named twice is looked at once.
    keys = {(one.explained.limit.store, one.explained.key) for one in standings}
    shown = [one for one in chosen if id(one) in found or (one.limit.store, one.key) not in keys]
    lines = _head(explanation)
    for one in shown:
        lines += ["", *_entry(one), *_standing(found.get(id(one)))]
    if not shown:
        lines += ["", "no limit applies" if explanation.enabled else "enabled is false: no limit applies"]
    lines += _troubles(standings)
    unknown = any(one.key is None or found[id(one)].trouble for one in shown)
    if standings and not unknown:
        lines += ["", *notes] if notes else []
    data = {
        **_head_data(explanation),
        "limits": [_data(one, found.get(id(one))) for one in shown],
        "notes": list(notes) if standings else [],
    }
    return Report(lines, data, 1 if unknown else 0)


def _memory_of(description: Description) -> list[str]:
    life = description.runtime.settings.deny_cache
    if not life:
        return []
    return [f"Processes remember refusals: for at most {life:g} s (deny_cache) some may go on refusing."]


def _head(explanation: Explanation) -> list[str]:
    trial = explanation.trial
    served = explanation.note or "no view is known for it"
    if explanation.view is not None:
        served = f"{_route(explanation)}, served by {explanation.view}"
    who = [f"address {explanation.address or 'unknown'}"]
    if explanation.address is not None and trial.address not in (None, explanation.address):
        who[0] += f" (peer {trial.address})"
    if trial.user is not None:
        who.append(f"user {trial.user}")
    lines = [f"{trial.method} {trial.target}: {served}", ", ".join(who)]
    if not explanation.enabled:
        lines.append("enabled is false: no limit is enforced")
    return lines


def _route(explanation: Explanation) -> str | None:
    return None if explanation.route is None else path_of(explanation.route)


def _head_data(explanation: Explanation) -> _Fields:
    trial = explanation.trial
    return {
        "framework": explanation.framework,
        "method": trial.method,
        "target": trial.target,
        "route": _route(explanation),
        "view": explanation.view,
        "note": explanation.note,
        "peer": trial.address,
        "address": explanation.address,
        "user": trial.user,
        "enabled": explanation.enabled,
    }


def _source(one: Explained) -> str:
    return one.limit.source + place(one.limit.where)


def _entry(one: Explained) -> list[str]:
    limit = one.limit
    name = f"{limit.name}: " if limit.name else ""
    note = f", {limit.note}" if limit.note else ""
    lines = [f"{name}{limit.quota} by {limit.by}, from {_source(one)}, on outage {limit.on_outage}{note}"]
    if one.counts is not None:
        lines.append(f"    counts  {one.counts}")
    if one.key is not None:
        lines.append(f"    key     {one.key}")
    if one.cost not in (None, 1) and one.line is not None and not isinstance(one.line.rule, Penalty):
        lines.append(f"    costs   {one.cost}")
    if one.why:
        word = "refuses" if one.refuses else "unknown" if one.key is None else "note   "
        lines.append(f"    {word} {one.why}")
    return lines


def _standing(one: Standing | None) -> list[str]:
    if one is None:
        return []
    if one.trouble:
        return ["    left    unknown"]
    line = one.explained.line
    before = "" if one.before is None or one.before == one.remaining else f", before {one.before}"
    if line is not None and isinstance(line.rule, Penalty):
        if not one.fits:
            return [f"    blocked for {span(one.reset)}{before}"]
        after = f"; those so far are forgotten in {span(one.reset)}" if one.reset else ""
        return [f"    left    {one.remaining} breaches before a block{before}{after}"]
    capacity = line.rule.capacity if line is not None and not isinstance(line.rule, Penalty) else one.remaining
    when = "" if not one.reset or (one.fits and one.remaining >= capacity) else f"; more in {span(one.reset)}"
    if not one.fits:
        when = f"; would pass in {span(one.reset)}"
    return [f"    left    {one.remaining} of {capacity}{before}{when}"]


def _data(one: Explained, standing: Standing | None) -> _Fields:
    left: _Fields | None = None
    trouble = ""
    if standing is not None:
        trouble = standing.trouble
        if not trouble:
            left = {"passes": standing.fits, "remaining": standing.remaining, "reset": standing.reset}
            left |= {} if standing.before is None else {"before": standing.before}
    return {
        **limit_data(one.limit),
        "applies": one.applies,
        "why": one.why,
        "refuses": one.refuses,
        "costs": one.cost,
        "counts": one.counts,
        "key": one.key,
        "left": left,
        "trouble": trouble,
    }


def _troubles(standings: Sequence[Standing]) -> list[str]:
    troubles = dict.fromkeys(one.trouble for one in standings if one.trouble)
    return ["", *(f"! {trouble}" for trouble in troubles)] if troubles else []


def _verdict(applying: Sequence[Explained], standings: Sequence[Standing]) -> _Fields:
    """What would become of the request now: ``admitted``, ``refused`` by some, or ``unknown``."""
    hard = [one for one in applying if not one.limit.shadow]
    by = [one.limit.name for one in hard if one.refuses]
    by += [
        one.explained.limit.name
        for one in standings
        if not one.trouble and not one.fits and not one.explained.limit.shadow
    ]
    told = {(one.explained.limit.store, one.explained.key) for one in standings if not one.trouble}
    open_ = [one for one in hard if not one.refuses and (one.limit.store, one.key) not in told]
    outcome = "refused" if by else "unknown" if open_ else "admitted"
    return {"outcome": outcome, "by": by}


def _verdict_line(verdict: _Fields) -> str:
    if verdict["outcome"] == "refused":
        return f"now: refused by {', '.join(verdict['by'])}"
    return "now: admitted" if verdict["outcome"] == "admitted" else "now: not known"


def _blocking(description: Description, one: Standing) -> bool:
    """Whether its store is one that could be asked."""
    return description.runtime.stores[one.explained.limit.store].blocking
