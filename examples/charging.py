"""What a request is charged with in the end, on FastAPI. Run: uvicorn --app-dir examples charging:app"""

from fastapi import FastAPI, Header, HTTPException
from fastapi.responses import StreamingResponse

from failsoft import Penalty, limit, reservation
from failsoft_starlette import FailsoftMiddleware

app = FastAPI()
app.add_middleware(FailsoftMiddleware)


# start: status
@app.post("/token")
@limit("5/minute", charge_on=(401, 403))  # only failures are charged
async def token(password: str):
    if password != "open sesame":
        raise HTTPException(401)
    return {"token": "..."}


# end: status


# start: settle
@app.post("/chat")
@limit("10000/day", by="header:X-Api-Key", name="tokens", cost=2000, adjustable=True)  # 2000 are reserved
async def chat(words: int):
    answer = "word " * words
    reservation("tokens").charge(words)  # what it really took
    return answer


# end: settle


# start: stream
@app.get("/stream")
@limit("100000/hour", name="bytes", cost=1000, adjustable=True)
async def stream(pieces: int):
    held = reservation("bytes")

    async def body():
        sent = 0
        try:
            for number in range(pieces):
                piece = f"piece {number}\n".encode()
                sent += len(piece)
                yield piece
        finally:
            await held.acharge(sent)  # the response has long begun: this is a trip of its own

    return StreamingResponse(body())


# end: stream


# start: shadow
@app.get("/feed")
@limit("100/minute")
@limit("10/minute", name="stricter", shadow=True)  # whom would it refuse?
async def feed():
    return "news"


# end: shadow


# start: penalty
@app.get("/prices")
@limit("3/minute", name="prices", penalty=Penalty(after=5, within="10m", block="15m", growth=2, most="1d"))
async def prices(x_client: str = Header("")):
    return "cheap"


# end: penalty
