"""A MongoDB in miniature: its wire protocol, and of its commands what `limits` sends, evaluated as MongoDB's manual says.

There is no real server to be had where these tests run. The drivers are the real ones, so what they do on time-outs,
broken connections and failed commands is what they do; what this server makes of an update is only as good as the
reading of the manual. It knows no replica sets, no authentication, no transactions, and it never expires a document.
"""

import contextlib
import datetime
import math
import socket
import struct
import threading
from collections.abc import Callable, Mapping
from typing import Any

from bson import decode, encode

from tests.servers import Port

__all__ = ["MongoServer"]

_OP_REPLY, _OP_QUERY, _OP_MSG = 1, 2004, 2013

_HELLO = {
    "helloOk": True,
    "isWritablePrimary": True,
    "ismaster": True,
    "maxBsonObjectSize": 16 * 1024 * 1024,
    "maxMessageSizeBytes": 48_000_000,
    "maxWriteBatchSize": 100_000,
    "minWireVersion": 0,
    "maxWireVersion": 21,
    "ok": 1,
}


class MongoServer:
    """A server on a TCP port of 127.0.0.1. Use it as a context manager.

    Attributes:
        collections: documents by their ``_id``, by the name of the collection.
        commands: the names of those that came, but for the drivers' own.
        failing: an error code that every command but the drivers' own is answered with, or 0.
    """

    def __init__(self) -> None:
        self._held = Port()
        self.port = self._held.number
        self.collections: dict[str, dict[Any, dict[str, Any]]] = {}
        self.commands: list[str] = []
        self.failing = 0
        self._lock = threading.Lock()
        self._going = threading.Event()
        self._going.set()
        self._open: list[socket.socket] = []
        self._listener: socket.socket | None = None

    @property
    def url(self) -> str:
        """Where it is."""
        return f"mongodb://127.0.0.1:{self.port}/limits"

    def start(self) -> "MongoServer":
        """Listen."""
        self._listener = socket.create_server(("127.0.0.1", self.port))
        threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()
        return self

    def kill(self) -> None:
        """Close every connection, and listen no more."""
        for open_ in [*self._open, self._listener]:
            if open_ is not None:
                with contextlib.suppress(OSError):
                    open_.shutdown(socket.SHUT_RDWR)
                open_.close()
        self._open, self._listener = [], None

    def pause(self) -> None:
        """Answer nothing."""
        self._going.clear()

    def resume(self) -> None:
        """Answer again, also what came meanwhile."""
        self._going.set()

    def connections(self) -> int:
        """How many are open."""
        return len(self._open)

    def __enter__(self) -> "MongoServer":
        return self.start()

    def __exit__(self, *error: object) -> None:
        self.resume()
        self.kill()
        self._held.release()

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            self._open.append(connection)
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            while header := _exactly(connection, 16):
                length, request, _, opcode = struct.unpack("<iiii", header)
                body = _exactly(connection, length - 16)
                self._going.wait()
                if opcode == _OP_QUERY:  # the first hello of a connection
                    payload = struct.pack("<iqii", 8, 0, 0, 1) + encode(_HELLO)
                    _send(connection, request, _OP_REPLY, payload)
                elif opcode == _OP_MSG:
                    flags, command = _message(body)
                    answer = self._run(command)
                    if not flags & 2:  # moreToCome: nobody waits
                        _send(connection, request, _OP_MSG, struct.pack("<iB", 0, 0) + encode(answer))
        with contextlib.suppress(ValueError):
            self._open.remove(connection)

    def _run(self, command: dict[str, Any]) -> Mapping[str, Any]:
        name = next(iter(command))
        if name in ("hello", "ismaster", "isMaster"):
            return _HELLO
        if name in ("endSessions", "ping", "buildInfo"):
            return {"ok": 1}
        self.commands.append(name)
        if self.failing:
            return {"ok": 0, "code": self.failing, "errmsg": "it was told to fail"}
        with self._lock:
            documents = self.collections.setdefault(command[name], {})
            return {"ok": 1, **getattr(self, f"_{name}")(documents, command)}

    def _createIndexes(self, documents: Any, command: dict[str, Any]) -> dict[str, Any]:
        return {}

    def _find(self, documents: dict[Any, dict[str, Any]], command: dict[str, Any]) -> dict[str, Any]:
        found = [document for document in documents.values() if _matches(document, command["filter"])]
        return {"cursor": {"id": 0, "ns": "limits.x", "firstBatch": found}}

    def _aggregate(self, documents: dict[Any, dict[str, Any]], command: dict[str, Any]) -> dict[str, Any]:
        rows = list(documents.values())
        for stage in command["pipeline"]:
            if "$match" in stage:
                rows = [row for row in rows if _matches(row, stage["$match"])]
            else:
                rows = [
                    {"_id": row["_id"], **{name: _value(rule, row) for name, rule in stage["$project"].items()}}
                    for row in rows
                ]
        return {"cursor": {"id": 0, "ns": "limits.x", "firstBatch": rows}}

    def _findAndModify(self, documents: dict[Any, dict[str, Any]], command: dict[str, Any]) -> dict[str, Any]:
        key = command["query"]["_id"]
        document = documents.get(key)
        if document is None:
            if not command.get("upsert"):
                return {"value": None}
            document = {"_id": key}
        for stage in command["update"]:
            for name in [stage["$unset"]] if isinstance(stage.get("$unset"), str) else stage.get("$unset", ()):
                document.pop(name, None)
            document = document | {name: _value(rule, document) for name, rule in stage.get("$set", {}).items()}
        documents[key] = document
        return {"value": document}

    def _update(self, documents: dict[Any, dict[str, Any]], command: dict[str, Any]) -> dict[str, Any]:
        (one,) = command["updates"]
        key = one["q"]["_id"]
        document = documents.get(key)
        if document is not None and not _matches(document, one["q"]):
            # Nothing matches, so it is to be made; and there is one already.
            error = {"index": 0, "code": 11000, "errmsg": "E11000 duplicate key error", "keyPattern": {"_id": 1}}
            return {"n": 0, "nModified": 0, "writeErrors": [error]}
        push = one["u"]["$push"]["entries"]
        entries = (document or {}).get("entries", [])
        place = push["$position"]
        entries = (entries[:place] + push["$each"] + entries[place:])[: push["$slice"]]
        documents[key] = {"_id": key, "entries": entries, **one["u"]["$set"]}
        return {"n": 1, "nModified": 1}


def _exactly(connection: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size and (more := connection.recv(size - len(data))):
        data += more
    return data


def _send(connection: socket.socket, request: int, opcode: int, payload: bytes) -> None:
    connection.sendall(struct.pack("<iiii", 16 + len(payload), 0, request, opcode) + payload)


def _message(body: bytes) -> tuple[int, dict[str, Any]]:
    """Flags, and the command, whose long lists are sections of their own."""
    (flags,) = struct.unpack_from("<I", body)
    command: dict[str, Any] = {}
    place = 4
    while place < len(body):
        kind = body[place]
        (size,) = struct.unpack_from("<i", body, place + 1)
        section = body[place + 1 : place + 1 + size]
        if kind == 0:
            command = {**decode(section), **command}
        else:
            name, _, rest = section[4:].partition(b"\0")
            documents = []
            while rest:
                (length,) = struct.unpack_from("<i", rest)
                documents.append(decode(rest[:length]))
                rest = rest[length:]
            command[name.decode()] = documents
        place += 1 + size
    return flags, command


def _ms(value: Any) -> Any:
    """Times as MongoDB counts them, in milliseconds since the epoch."""
    if isinstance(value, datetime.datetime):
        return value.replace(tzinfo=datetime.UTC).timestamp() * 1000
    return value


def _matches(document: Mapping[str, Any], query: Mapping[str, Any]) -> bool:
    return all(_fits(_at(document, path), rule) for path, rule in query.items())


def _at(document: Mapping[str, Any], path: str) -> Any:
    name, _, index = path.partition(".")
    value = document.get(name)
    if not index:
        return value
    return value[int(index)] if isinstance(value, list) and int(index) < len(value) else None


def _fits(value: Any, rule: Any) -> bool:
    if not isinstance(rule, Mapping):
        return bool(value == rule)
    for operator, bound in rule.items():
        if operator == "$not":
            if _fits(value, bound):
                return False
        elif operator == "$gte":
            if value is None or _ms(value) < _ms(bound):
                return False
        else:
            raise NotImplementedError(operator)
    return True


def _value(rule: Any, document: Mapping[str, Any], **variables: Any) -> Any:
    """What an aggregation expression comes to."""
    if isinstance(rule, str) and rule.startswith("$$"):
        return datetime.datetime.now(datetime.UTC) if rule == "$$NOW" else variables[rule[2:]]
    if isinstance(rule, str) and rule.startswith("$"):
        return document.get(rule[1:])
    if isinstance(rule, list):
        return [_value(one, document, **variables) for one in rule]
    if not isinstance(rule, Mapping):
        return rule
    ((operator, arguments),) = rule.items()
    if operator == "$cond":
        return _value(
            arguments["then" if _value(arguments["if"], document, **variables) else "else"], document, **variables
        )
    if operator == "$filter":
        items = _value(arguments["input"], document, **variables)
        if items is None:
            return None
        name = arguments["as"]
        return [item for item in items if _value(arguments["cond"], document, **{name: item})]
    given = _value(arguments, document, **variables)
    return _OPERATORS[operator](given)


def _compare(test: Callable[[Any, Any], bool]) -> Callable[[list[Any]], bool]:
    def compare(given: list[Any]) -> bool:
        # In the order of types, what is missing comes before numbers, and numbers before dates.
        first, second = ((0 if v is None else 2 if isinstance(v, datetime.datetime) else 1, _ms(v) or 0) for v in given)
        return test(first, second)

    return compare


def _add(given: list[Any]) -> Any:
    if None in given:
        return None
    times = [value for value in given if isinstance(value, datetime.datetime)]
    total = sum(_ms(value) for value in given)
    return datetime.datetime.fromtimestamp(total / 1000, datetime.UTC) if times else total


def _subtract(given: list[Any]) -> Any:
    return None if None in given else _ms(given[0]) - _ms(given[1])


_OPERATORS: dict[str, Callable[[Any], Any]] = {
    "$add": _add,
    "$divide": lambda given: given[0] / given[1],
    "$floor": lambda given: None if given is None else math.floor(given),
    "$gt": _compare(lambda first, second: first > second),
    "$gte": _compare(lambda first, second: first >= second),
    "$ifNull": lambda given: given[0] if given[0] is not None else given[1],
    "$lt": _compare(lambda first, second: first < second),
    "$lte": _compare(lambda first, second: first <= second),
    "$max": lambda given: max(value for value in given if value is not None),
    "$min": lambda given: min(given, default=None),
    "$multiply": lambda given: None if None in given else given[0] * given[1],
    "$size": len,
    "$subtract": _subtract,
}
