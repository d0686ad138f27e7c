"""``failsoft store``: is it there, how fast is it, what does the server say of itself, and what of ours lies in it."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

from failsoft.cli.report import Report, percent, span
from failsoft.cli.store_flights import Findings, latency, ms, refused
from failsoft.clock import SYSTEM
from failsoft.errors import FailsoftError
from failsoft.exchange import DEFAULT
from failsoft.inspection.keys import SCHEMAS, KeyParts, read_key
from failsoft.settings import Settings
from failsoft.stores import open_store

if TYPE_CHECKING:
    from failsoft.stores.diagnostics import Sample, Server

__all__ = ["ACTIONS", "store"]

ACTIONS = ("ping", "latency", "info", "keys")

_HARMLESS = ("noeviction", "volatile-ttl")
"""Eviction policies that forget no limit that is needed: nothing, and what would be over soonest."""

_OTHERS = ("memcached", "mongodb", "mongodb+srv")
"""Servers that do not speak the Redis protocol."""

_KINDS = {"rl": ("limits", ""), "sess": ("sessions", "records"), "subj": ("sessions", "lists of users")}
"""What the concerns of keys are called, and their keys where they have but one kind."""

_FULL = 0.9
_EXAMPLES = 3

_Fields = dict[str, Any]


def store(settings: Settings, action: str, *, name: str | None, count: int, sample: int) -> Report:
    """One look at every store of the settings, or at one of them.

    Args:
        settings: which stores there are, and what our keys begin with.
        action: one of `ACTIONS`.
        name: which store; None for all.
        count: flights to measure.
        sample: keys to look at.
    """
    urls: dict[str, Any] = {"default": settings.store, **dict(settings.stores)}
    if name is not None and name not in urls:
        raise FailsoftError(f"there is no store {name!r}; there are: {', '.join(urls)}")
    lines: list[str] = []
    stores: list[_Fields] = []
    for each, url in urls.items():
        if name in (None, each):
            own = settings.at_store(url)
            # Elsewhere than in the default store, sessions may be all that it is for, and all that its ACL allows.
            limits = not settings.sessions or settings.session_store != each or each == DEFAULT
            found = (
                latency(own, each, count) if action == "latency" else _look(own, each, action, sample, limits=limits)
            )
            lines += ([""] if lines else []) + found.lines
            stores.append(found.data)
    findings = any(one["findings"] for one in stores)
    return Report(lines, {"action": action, "stores": stores}, 1 if findings else 0)


def _look(settings: Settings, name: str, action: str, sample: int, *, limits: bool) -> Findings:
    if settings.store.partition("://")[0] in _OTHERS:
        found = latency(settings, name, 1)
        if action != "ping":
            found.lines.append(
                "  it speaks a protocol of its own: info and keys are for servers that speak that of Redis"
            )
        return found
    opened = open_store(settings, name=name)
    try:
        found = Findings(name, opened.url)
        if not opened.blocking:
            found.lines.append(
                "  each process counts by itself, so there is nothing to reach, and nothing to see from here"
            )
            found.data["servers"] = []
            return found
        _servers(found, settings, action, sample)
        if not found.data["findings"]:
            refused(found, opened, settings.prefix, limits=limits)
        return found
    finally:
        opened.close()


def _servers(found: Findings, settings: Settings, action: str, sample: int) -> None:
    # Imported here: memory:// needs none of the packages that it brings.
    from failsoft.stores.diagnostics import examine

    prefix = settings.prefix + ":"
    servers = examine(
        settings.store,
        options=getattr(settings.store, "options", None),
        info=action == "info",
        keys=0 if action == "ping" else sample,
        take=lambda key: key.startswith(prefix),
    )
    for server in servers:
        found.lines.append(f"  {_title(server)}")
        if server.error:
            found.finding(f"{server.where}: {server.error}")
            continue
        found.lines.append(f"      connect {ms(server.connect)}, ping {ms(server.ping)}")
        for trouble in server.troubles:
            found.lines.append(f"      {trouble}")
        if server.role == "replica":
            found.finding(f"{server.where} is a replica, which takes no writes: name the primary")
        if action == "info":
            facts = _facts(server.info)
            found.lines += [f"      {line}" for line in _info(facts)]
            for finding in _harm(facts):
                found.finding(f"{server.where}: {finding}")
    _disagreement(found, servers)
    found.data["servers"] = [_server_data(server) for server in servers]
    samples = [server.sample for server in servers if server.sample is not None]
    if samples:
        _counted(found, samples, settings.prefix, examples=action == "keys")


def _title(server: "Server") -> str:
    parts = [server.version, server.role or server.kind, server.tls or "no TLS"]
    if server.slots is not None:
        parts.append(f"{server.slots} slots")
    if server.says:
        parts.append(f"says the primary is {server.says}")
    return f"{server.where}  {', '.join(part for part in parts if part)}" if not server.error else server.where


def _disagreement(found: Findings, servers: Sequence["Server"]) -> None:
    said = {server.says for server in servers if server.says}
    if len(said) > 1:
        found.finding(f"the sentinels disagree about where the primary is: {', '.join(sorted(said))}")
    for server in servers:
        if server.kind == "sentinel" and not server.error and not server.says:
            found.finding(f"{server.where}: {'; '.join(server.troubles) or 'it names no primary'}")
        elif any("slots have no node" in trouble for trouble in server.troubles):
            found.finding(next(trouble for trouble in server.troubles if "slots have no node" in trouble))


def _server_data(server: "Server") -> _Fields:
    data = asdict(replace(server, sample=None))
    del data["sample"]
    data["info"] = _facts(server.info)
    data["connect_ms"], data["ping_ms"] = (
        None if one is None else round(one * 1000, 3) for one in (data.pop("connect"), data.pop("ping"))
    )
    return data


def _facts(info: Mapping[str, str]) -> _Fields:
    """What of INFO matters here, as far as it was said."""
    return {
        **{name: int(info[key]) for name, key in _NUMBERS.items() if info.get(key, "").isdecimal()},
        **{name: info[key] for name, key in _WORDS.items() if key in info},
    }


_NUMBERS = {
    "uptime_s": "uptime_in_seconds",
    "memory_used": "used_memory",
    "memory_most": "maxmemory",
    "evicted_keys": "evicted_keys",
    "expired_keys": "expired_keys",
    "clients": "connected_clients",
    "clients_most": "maxclients",
    "clients_blocked": "blocked_clients",
    "clients_rejected": "rejected_connections",
    "scripts": "number_of_cached_scripts",
    "scripts_memory": "used_memory_scripts",
    "replicas": "connected_slaves",
    "snapshot_at": "rdb_last_save_time",
    "snapshot_changes_since": "rdb_changes_since_last_save",
    "append_only": "aof_enabled",
    "loading": "loading",
}

_WORDS = {
    "policy": "maxmemory_policy",
    "snapshot_status": "rdb_last_bgsave_status",
    "append_only_status": "aof_last_write_status",
}


def _info(facts: _Fields) -> list[str]:
    """Facts for people."""
    if not facts:
        return []

    def say(name: str) -> Any:
        return facts.get(name, "?")

    used, most, at = facts.get("memory_used", 0), facts.get("memory_most", 0), facts.get("snapshot_at")
    of = f"{_size(most)} ({percent(used, most)})" if most else "any (no maxmemory)"
    age = "?" if at is None else span(max(0.0, SYSTEM.time() - at))
    return [
        f"memory       {_size(used)} of {of}, policy {say('policy')}",
        f"evicted      {say('evicted_keys')} keys since it started {span(facts.get('uptime_s', 0))} ago",
        f"persistence  {'' if facts.get('append_only') else 'no '}append-only file; last snapshot, or start, {age} ago, "
        f"{say('snapshot_changes_since')} changes since",
        f"clients      {say('clients')} of {say('clients_most')}, {say('clients_blocked')} blocked, "
        f"{say('clients_rejected')} rejected",
        f"scripts      {say('scripts')} cached, {_size(facts.get('scripts_memory', 0))}",
        f"replicas     {say('replicas')}",
    ]


def _harm(facts: _Fields) -> list[str]:
    """What of the facts does harm to those who count here."""
    found: list[str] = []
    used, most, policy = facts.get("memory_used", 0), facts.get("memory_most", 0), facts.get("policy", "noeviction")
    if most and policy not in _HARMLESS:
        found.append(
            f"maxmemory-policy {policy} forgets limits when memory is full, used-up ones too, since every key of ours has an "
            "end: set noeviction or volatile-ttl"
        )
    if facts.get("evicted_keys", 0):
        found.append(f"{facts['evicted_keys']} keys were evicted: give it more memory, or keep caches elsewhere")
    if most and used >= _FULL * most:
        found.append(f"memory is {percent(used, most)} full: give it more")
    if facts.get("clients", 0) >= _FULL * facts.get("clients_most", float("inf")):
        found.append("connections are nearly used up: raise maxclients, or lower max_connections")
    if facts.get("loading"):
        found.append("it is loading its data, and answers nothing until it has")
    if facts.get("snapshot_status", "ok") != "ok":
        found.append("its last snapshot failed, after which it may refuse writes: look at its disk and its log")
    if facts.get("append_only_status", "ok") != "ok":
        found.append("it cannot write its append-only file, and refuses writes: look at its disk and its log")
    return found


def _size(size: float) -> str:
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} TiB"


def _counted(found: Findings, samples: Sequence["Sample"], prefix: str, *, examples: bool) -> None:
    """How many keys are ours, and what for."""
    keys = {key: life for sample in samples for key, life in sample.keys.items()}
    looked_at, size = sum(one.looked_at for one in samples), sum(one.size for one in samples)
    complete = all(one.complete for one in samples)
    how = "all" if complete else f"{looked_at} of {size}, a sample: numbers in all are estimates"
    found.lines.append(f"  keys: looked at {how}")
    scale = 1.0 if complete or not looked_at else size / looked_at
    by: dict[tuple[str, str], list[str]] = {}
    for key in keys:
        parts = read_key(key, prefix)
        by.setdefault(_group(parts), []).append(key)
    about = "" if complete else "about "
    found.lines.append(f"      {about}{round(len(keys) * scale)} of {size} are ours, below {prefix}:")
    groups: list[_Fields] = []
    for (concern, scope), members in sorted(by.items(), key=lambda item: (-len(item[1]), item[0])):
        read = [parts for key in sorted(members) if (parts := read_key(key, prefix)) is not None]
        quotas = Counter(parts.quota for parts in read if parts.quota)
        group = {
            "concern": concern,
            "scope": scope,
            "keys": len(members),
            "estimate": round(len(members) * scale),
            "quotas": dict(quotas.most_common()),
        }
        words = f"{concern} {scope}  {', '.join(quotas)}".rstrip()
        found.lines.append(f"      {about}{group['estimate']:>7}  {words}")
        if examples:
            group["examples"] = {
                key: keys[key] / 1000 if keys[key] >= 0 else None for key in sorted(members)[:_EXAMPLES]
            }
            found.lines += [f"                   {key}  {_life(keys[key])}" for key in sorted(members)[:_EXAMPLES]]
        groups.append(group)
    endless = sum(life == -1 for life in keys.values())
    if endless:
        found.finding(
            f"{endless} keys of ours have no end, which we never write: something else uses the prefix {prefix!r}"
        )
    old = sum((parts := read_key(key, prefix)) is not None and _is_old(parts) for key in keys)
    found.data["keys"] = {
        "looked_at": looked_at,
        "size": size,
        "complete": complete,
        "ours": len(keys),
        "estimate": round(len(keys) * scale),
        "other_schema": old,
        "groups": groups,
    }


def _group(parts: KeyParts | None) -> tuple[str, str]:
    if parts is None:
        return "unknown", ""
    concern, scope = _KINDS.get(parts.concern, (parts.concern, ""))
    scope = scope or parts.scope
    return concern, f"{scope} (schema {parts.schema})" if _is_old(parts) else scope


def _is_old(parts: KeyParts) -> bool:
    """Whether it is of another version than the one that is written now."""
    return parts.schema != SCHEMAS.get(parts.concern, parts.schema)


def _life(milliseconds: int) -> str:
    return f"{span(milliseconds / 1000)} to live" if milliseconds >= 0 else "no end" if milliseconds == -1 else "over"
