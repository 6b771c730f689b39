"""One application in three ASGI frameworks, for a server with several workers.

Each answers what it looked up, and after that its process: ``GET /``, ``POST /set/{number}``, and a websocket
which for each message sets what it says, or looks for an empty one.
"""

import asyncio
import json
import os

from fastapi import FastAPI, WebSocket
from quart import Quart, websocket
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route, WebSocketRoute

from flask_globalstate import GlobalState
from flask_globalstate.asgi import GlobalStateASGIMiddleware
from flask_globalstate.system.clock import now

state = GlobalState.from_config({})
DATA = state.dict("DATA", initial={"n": 0})


def look():
    return [now(), DATA["n"], os.getpid()]


def set_number(number):
    DATA["n"] = number
    return look()


async def converse(receive, send):
    await send(json.dumps(os.getpid()))
    while True:
        message = json.loads(await receive())
        if message is not None:
            DATA["n"] = message
        await send(json.dumps(look()))


# --- FastAPI ------------------------------------------------------------------------------------

fastapi = FastAPI()
fastapi.add_middleware(GlobalStateASGIMiddleware, state=state)


@fastapi.get("/")
def fastapi_look():
    """In a thread, as FastAPI runs what is no coroutine."""
    return look()


@fastapi.post("/set/{number}")
async def fastapi_set(number: int):
    return set_number(number)


@fastapi.websocket("/socket")
async def fastapi_socket(socket: WebSocket):
    await socket.accept()
    await converse(socket.receive_text, socket.send_text)


# --- Starlette ----------------------------------------------------------------------------------


async def starlette_look(request):
    """In a task of its own."""
    return JSONResponse(await asyncio.create_task(asyncio.to_thread(look)))


async def starlette_set(request):
    return JSONResponse(set_number(request.path_params["number"]))


starlette = Starlette(
    routes=[
        Route("/", starlette_look),
        Route("/set/{number:int}", starlette_set, methods=["POST"]),
        WebSocketRoute("/socket", fastapi_socket),
    ]
)
starlette.add_middleware(GlobalStateASGIMiddleware, state=state)

# --- Quart --------------------------------------------------------------------------------------

quart = Quart(__name__)
quart.asgi_app = GlobalStateASGIMiddleware(quart.asgi_app, state)


@quart.get("/")
async def quart_look():
    return look()


@quart.post("/set/<int:number>")
async def quart_set(number):
    return set_number(number)


@quart.websocket("/socket")
async def quart_socket():
    await converse(websocket.receive, websocket.send)
