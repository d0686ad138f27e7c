"""Limits on WebSockets, on a FastAPI application. Run: uvicorn chat:app --app-dir examples"""

from fastapi import FastAPI, WebSocket
from starlette.endpoints import WebSocketEndpoint

from failsoft import limit
from failsoft_starlette import FailsoftMiddleware, SocketMessage

app = FastAPI()
app.add_middleware(FailsoftMiddleware, limits=["100/minute"])  # counts openings too


# start: both
@app.websocket("/chat/{room}")
@limit("10/minute")  # openings
@limit("5/second; 100/minute", name="chat", messages=True)  # messages, over all sockets of a client
async def chat(websocket: WebSocket, room: str):
    await websocket.accept()
    async for text in websocket.iter_text():
        await websocket.send_text(f"{room}: {text}")


# end: both


# start: cost
def kibibytes(message: SocketMessage) -> int:
    return 1 + len(message.data) // 1024


@app.websocket("/upload")
@limit("64/minute", messages=True, cost=kibibytes, by="header:X-Api-Key", on_missing="refuse", on_outage="closed")
async def upload(websocket: WebSocket):
    await websocket.accept()
    async for piece in websocket.iter_text():
        await websocket.send_text(f"{len(piece)} characters stored")


# end: cost


# start: class
class Ticker(WebSocketEndpoint):
    encoding = "text"

    @limit("3/minute")  # of what is called when it is opened: openings
    async def on_connect(self, websocket: WebSocket):
        await websocket.accept()

    @limit("20/minute")  # of what is called for each message: messages
    async def on_receive(self, websocket: WebSocket, data: str):
        await websocket.send_text(f"{data}: 42")


app.router.add_websocket_route("/ticker", Ticker)
# end: class
