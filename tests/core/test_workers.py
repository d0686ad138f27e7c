"""What their server was told, of workers and of proxies: on paper, and in processes of the servers themselves."""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from failsoft.settings import Settings
from failsoft.settings.servers import believes_everyone
from failsoft.settings.workers import workers_from, workers_of_server
from tests.core.texts import any_text
from tests.processes import Served

GUNICORN = "/usr/bin/gunicorn"
UVICORN = "/app/.venv/bin/uvicorn"

APPLICATION = """
from failsoft import Settings
from failsoft.runtime import Runtime

workers = str(Runtime(Settings.load()).settings.workers).encode()

def wsgi(environ, start_response):
    start_response("200 OK", [])
    return [workers]

async def asgi(scope, receive, send):
    if scope["type"] != "http":
        raise RuntimeError("only requests are served")
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": workers})
"""


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        ([GUNICORN, "-w", "3", "app:app"], 3),
        ([GUNICORN, "-w3", "app:app"], 3),
        ([GUNICORN, "-w=3", "app:app"], 3),
        ([GUNICORN, "-w 3", "app:app"], 3),
        ([GUNICORN, "app:app", "--", "-w", "3"], None),
        ([GUNICORN, "app:app", "--workers", "3"], 3),
        ([GUNICORN, "--workers=3", "app:app"], 3),
        (["gunicorn", "--workers=3", "-w", "4", "app:app"], 4),
        (["/lib/python3.13/site-packages/gunicorn/__main__.py", "-w", "3"], 3),
        ([r"C:\venv\Scripts\uvicorn.exe", "--workers", "3"], 3),
        ([UVICORN, "app:app", "--workers", "3"], 3),
        ([UVICORN, "--workers=3", "app:app"], 3),
        (["/lib/python3.13/site-packages/uvicorn/__main__.py", "--workers", "3"], 3),
        ([GUNICORN, "--worker-class=gthread", "--worker-connections=50", "-k", "sync"], None),
        ([UVICORN, "-w", "3", "app:app"], None),
        ([GUNICORN, "-w"], None),
        ([GUNICORN, "-w", "many"], None),
        ([GUNICORN, "-w", "0"], None),
        ([GUNICORN, "-w", "99999"], None),
        ([GUNICORN, "--workers"], None),
        (["/usr/bin/celery", "worker", "-w", "3"], None),
        (["/usr/bin/my-gunicorn", "-w", "3"], None),
        (["gunicorn.py", "-w", "3"], None),
        (["-c", "-w", "3"], None),
        ([""], None),
        ([], None),
    ],
)
def test_command_lines(command: Sequence[str], expected: int | None) -> None:
    """The number is the server's own option, of a program that is such a server; anything else is no number."""
    assert (expected, expected or 1) == (workers_of_server({}, command), workers_from({}, command))


@pytest.mark.parametrize(
    ("command", "environ", "expected"),
    [
        ([GUNICORN], {"WEB_CONCURRENCY": "5"}, 5),
        ([GUNICORN, "-w", "3"], {"WEB_CONCURRENCY": "5"}, 3),
        ([GUNICORN], {"WEB_CONCURRENCY": "5", "GUNICORN_CMD_ARGS": "--bind=:80 --workers=4"}, 4),
        ([GUNICORN, "-w", "3"], {"GUNICORN_CMD_ARGS": "--workers=4"}, 3),
        ([GUNICORN], {"GUNICORN_CMD_ARGS": "--access-logformat 'a -w 9' -w 4"}, 4),
        ([GUNICORN], {"GUNICORN_CMD_ARGS": "-w 4 'open", "WEB_CONCURRENCY": "5"}, 5),
        ([UVICORN], {"GUNICORN_CMD_ARGS": "--workers=4"}, 1),
        ([UVICORN], {"UVICORN_WORKERS": "4", "WEB_CONCURRENCY": "5"}, 4),
        ([UVICORN, "--workers", "3"], {"UVICORN_WORKERS": "4"}, 3),
        (["/usr/bin/celery"], {"GUNICORN_CMD_ARGS": "--workers=4", "UVICORN_WORKERS": "4"}, 1),
        (["/usr/bin/celery"], {"WEB_CONCURRENCY": "5"}, 5),
    ],
)
def test_the_order_is_the_servers(command: Sequence[str], environ: Mapping[str, str], expected: int) -> None:
    """The command line, then what the server takes for a part of it, then WEB_CONCURRENCY: as gunicorn and uvicorn have it."""
    assert expected == workers_from(environ, command)


@given(st.sampled_from([GUNICORN, UVICORN]), st.lists(st.text(alphabet="-w=orkes0123 '\\\0ü", max_size=12)), any_text())
@settings(deadline=None)
def test_nothing_raises(program: str, arguments: list[str], text: str) -> None:
    """Whatever stands on a command line or in the environment, it is a number of workers or none."""
    assert workers_from({"GUNICORN_CMD_ARGS": text, "UVICORN_WORKERS": text}, [program, *arguments]) >= 1
    assert believes_everyone({"GUNICORN_CMD_ARGS": text, "FORWARDED_ALLOW_IPS": text}, [program, *arguments]) in (0, 1)


def test_an_interpreter_without_a_command_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """Within another program Python has no sys.argv."""
    monkeypatch.delattr(sys, "argv")
    assert 5 == workers_from({"WEB_CONCURRENCY": "5"})


def test_a_setting_comes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """The setting and its variable say more than the server's command line, which is for where neither says anything."""
    monkeypatch.setattr(sys, "argv", [GUNICORN, "-w", "3"])
    loaded = (
        Settings.load({"workers": 7}, environ={}),
        Settings.load({}, environ={"FAILSOFT_WORKERS": "8"}),
        Settings.load({}, environ={}),
        Settings(),
        Settings.from_mapping({}),
    )
    assert [7, 8, 3, 3, 3] == [one.workers for one in loaded]


WORKER = ["-k", "uvicorn.workers.UvicornWorker"]
EVERYONE = {"FORWARDED_ALLOW_IPS": "*"}


@pytest.mark.parametrize(
    ("command", "environ", "expected"),
    [
        ([UVICORN, "app:app", "--forwarded-allow-ips", "*"], {}, True),
        ([UVICORN, "app:app", "--forwarded-allow-ips=*"], {}, True),
        ([UVICORN, "app:app", "--forwarded-allow-ips=10.0.4.7, 0.0.0.0/0"], {}, True),
        ([UVICORN, "app:app"], EVERYONE, True),
        ([UVICORN, "app:app"], {"UVICORN_FORWARDED_ALLOW_IPS": "*"}, True),
        ([UVICORN, "app:app", "--no-proxy-headers", "--proxy-headers"], EVERYONE, True),
        ([UVICORN, "app:app"], {}, False),
        ([UVICORN, "app:app", "--forwarded-allow-ips=10.0.4.7"], {}, False),
        ([UVICORN, "app:app", "--forwarded-allow-ips=10.0.4.7"], EVERYONE, False),
        ([UVICORN, "app:app", "--forwarded-allow-ips=10.0.0.0/8,127.0.0.1"], {}, False),
        ([UVICORN, "app:app", "--no-proxy-headers", "--forwarded-allow-ips=*"], {}, False),
        ([UVICORN, "app:app"], {"UVICORN_PROXY_HEADERS": "0", **EVERYONE}, False),
        ([GUNICORN, *WORKER, "--forwarded-allow-ips=*", "app:app"], {}, True),
        ([GUNICORN, "--worker-class=uvicorn_worker.UvicornWorker", "app:app"], EVERYONE, True),
        ([GUNICORN, "app:app"], {"GUNICORN_CMD_ARGS": "-kuvicorn.workers.UvicornWorker", **EVERYONE}, True),
        ([GUNICORN, "app:app", *WORKER, "--forwarded-allow-ips=127.0.0.1"], EVERYONE, False),
        ([GUNICORN, "app:app", "--forwarded-allow-ips=*"], {}, False),
        ([GUNICORN, "app:app", "-k", "gthread"], EVERYONE, False),
        (["manage.py", "runserver"], EVERYONE, False),
        ([], EVERYONE, False),
    ],
)
def test_servers_that_believe_everyone(
    command: Sequence[str], environ: Mapping[str, str], expected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that lets clients choose their addresses is told of at start; one that names its proxies is not."""
    assert expected == believes_everyone(environ, command)
    for name in ("FORWARDED_ALLOW_IPS", "UVICORN_FORWARDED_ALLOW_IPS", "UVICORN_PROXY_HEADERS", "GUNICORN_CMD_ARGS"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys, "argv", command)
    assert (["failsoft.W011"] if expected else []) == [one.id for one in Settings(store="redis://h").advice()]


SERVE_WSGI = ["--bind=127.0.0.1:{port}", "serving:wsgi"]
SERVE_ASGI = ["--port={port}", "serving:asgi"]


@pytest.mark.processes
@pytest.mark.parametrize(
    ("command", "environ"),
    [
        pytest.param(["gunicorn", "-w", "2", *SERVE_WSGI], {}, id="gunicorn -w 2"),
        pytest.param(
            [sys.executable, "-m", "gunicorn", "--workers=2", "--preload", *SERVE_WSGI],
            {},
            id="python -m gunicorn --preload",
        ),
        pytest.param(["gunicorn", *SERVE_WSGI], {"GUNICORN_CMD_ARGS": "--workers=2"}, id="GUNICORN_CMD_ARGS"),
        pytest.param(["uvicorn", "--workers", "2", *SERVE_ASGI], {}, id="uvicorn --workers 2"),
        pytest.param(
            [sys.executable, "-m", "uvicorn", *SERVE_ASGI], {"UVICORN_WORKERS": "2"}, id="python -m UVICORN_WORKERS"
        ),
    ],
)
def test_processes_of_real_servers(command: Sequence[str], environ: Mapping[str, str], tmp_path: Path) -> None:
    """A worker of a real server knows of its sibling, and warns that counters in its memory are not the sibling's."""
    pytest.importorskip("uvicorn" if SERVE_ASGI[1] in command else "gunicorn")
    (tmp_path / "serving.py").write_text(APPLICATION)
    with Served(command, tmp_path, cwd=tmp_path, **environ) as server:
        assert b"2" == server.get("/").body
        assert "each of the 2 workers counts by itself" in server.log()


@pytest.mark.processes
@pytest.mark.parametrize(
    ("command", "environ"),
    [
        pytest.param(["uvicorn", "--forwarded-allow-ips", "*", *SERVE_ASGI], {}, id="uvicorn"),
        pytest.param(
            ["gunicorn", *WORKER, SERVE_WSGI[0], "serving:asgi"], EVERYONE, id="gunicorn with uvicorn's worker"
        ),
    ],
)
def test_real_servers_that_believe_everyone(command: Sequence[str], environ: Mapping[str, str], tmp_path: Path) -> None:
    """What a real server was told about proxies is known where it serves."""
    for name in ("uvicorn", "gunicorn")[: 1 + ("gunicorn" in command)]:
        pytest.importorskip(name)
    (tmp_path / "serving.py").write_text(APPLICATION)
    with Served(command, tmp_path, cwd=tmp_path, **environ) as server:
        assert b"1" == server.get("/").body
        assert "(failsoft.W011)" in server.log()
