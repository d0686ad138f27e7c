"""Refusing some requests, so that the others are served. Run: uvicorn shedding:app --app-dir examples"""

import logging

from fastapi import FastAPI
from fastapi.responses import StreamingResponse

from failsoft import CapacityChanged, Settings, Shed, criticality
from failsoft.runtime import Runtime
from failsoft_starlette import FailsoftMiddleware

log = logging.getLogger("shop")

# start: settings
settings = Settings(
    shed=True,
    criticality={
        "/checkout": "critical_plus",  # the route, and those below it
        "/reports": "sheddable",
        "/probes": "exempt",
        "*": "critical",  # the default
    },
)
# end: settings

runtime = Runtime(settings)
app = FastAPI()
app.add_middleware(FailsoftMiddleware, runtime=runtime)


# start: decorator
@app.get("/recommendations")
@criticality("sheddable_plus")
async def recommendations():
    return ["tea", "cups"]


@app.get("/news")
@criticality("exempt")  # open for hours, and idle: it is no load
async def news():
    async def pieces():
        yield "data: hello\n\n"

    return StreamingResponse(pieces(), media_type="text/event-stream")


# end: decorator


@app.post("/checkout/{order}")
async def checkout(order: int):
    return {"order": order}


@app.get("/reports/{year}")
async def reports(year: int):
    return {"year": year}


@app.get("/healthz")
async def health():
    return "well"


# start: events
def heard(event):
    match event:
        case Shed(criticality=name, reason=reason, route=route):
            log.warning("shed on %s (%s): %s", route, name, reason)
        case CapacityChanged(limit=limit, before=before):
            log.info("%d requests at once, after %d", limit, before)


runtime.listen(heard)
# end: events
