"""A GraphQL endpoint that charges what a query asks for, on Starlette. Run: uvicorn graphql_cost:app --app-dir examples"""

import re

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.responses import JSONResponse
from starlette.routing import Route

from failsoft import limit
from failsoft_starlette import FailsoftMiddleware

# start: cost
FIELD = re.compile(r"(?P<name>\w+)\s*(?:\((?P<arguments>[^)]*)\))?|[{}]")
FIRST = re.compile(r"\bfirst\s*:\s*(\d+)")


def weigh(query: str) -> int:
    """Fields, each as often as the lists around it are long: a measure, not a parser; your GraphQL library has a better one."""
    total, length, lengths = 0, 1, [1]
    for part in FIELD.finditer(query):
        if part["name"]:
            total += lengths[-1]
            first = FIRST.search(part["arguments"] or "")
            length = min(int(first[1]), 1000) if first else 1
        elif part[0] == "{":
            lengths.append(lengths[-1] * length)
            length = 1
        elif len(lengths) > 1:
            lengths.pop()
    return total


async def cost(request):
    try:
        return weigh((await request.json())["query"])  # the view reads the body all the same
    except (KeyError, TypeError, ValueError):
        return 1  # no query; what to say of that is the view's business


@limit("1000/minute", name="points", cost=cost)
async def graphql(request):
    query = (await request.json()).get("query", "")
    return JSONResponse({"data": {}, "extensions": {"points": weigh(query)}})


# end: cost

app = Starlette(
    routes=[Route("/graphql", graphql, methods=["POST"])],
    middleware=[Middleware(FailsoftMiddleware)],
)
