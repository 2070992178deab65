"""A backend that takes photos, hears by webhook when their masks are there, and tells browsers live.

    maskq up --env-file maskq.env &
    set -a; . ./maskq.env; set +a      # once it says 'all ready'
    uvicorn --app-dir examples fastapi_backend:app
    curl -F photo=@photo.jpg http://127.0.0.1:8000/photos
    curl -N http://127.0.0.1:8000/photos/ID/events
    curl http://127.0.0.1:8000/photos/ID

Needs `pip install maskq fastapi uvicorn python-multipart`.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI, HTTPException, Request, UploadFile
from fastapi.responses import StreamingResponse

from maskq import AsyncClient, Event, InvalidRequest, JobNotFound, MaskqError, webhooks

ended: dict[str, Event] = {}  # by job; a real backend has a table
# One reader of events serves all browsers; each has a queue. None: reconnect.
watchers: defaultdict[str, set[asyncio.Queue[str | None]]] = defaultdict(set)


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    async with AsyncClient.from_env() as client:
        app.state.maskq = client
        reader = asyncio.create_task(tell_watchers(client))
        yield
        reader.cancel()


app = FastAPI(lifespan=lifespan)


@app.post("/photos", status_code=202)
async def submit(photo: UploadFile, request: Request) -> dict[str, str]:
    """Returns as soon as the job is safe; nothing waits for the model."""
    try:
        job = await request.app.state.maskq.submit(
            await photo.read(), outputs={"mask", "stats"}, webhook=str(request.url_for("on_end"))
        )
    except InvalidRequest as error:
        raise HTTPException(422, str(error)) from None
    return {"id": job.id}


@app.post("/hooks/maskq")
async def on_end(request: Request) -> dict[str, str]:
    """A delivery may come twice: storing it under its job does no harm."""
    try:
        event = webhooks.verify(request.headers, await request.body())
    except webhooks.WebhookRefused as error:
        raise HTTPException(400, str(error)) from None
    ended[event.subject] = event
    return {"status": "thanks"}


@app.get("/photos/{job_id}")
async def look(job_id: str) -> dict[str, Any]:
    event = ended.get(job_id)
    if event is None:
        return {"status": "in progress"}
    return {"status": event.data["status"], **event.data.get("result", {})}


@app.get("/photos/{job_id}/events")
async def events(job_id: str, request: Request) -> StreamingResponse:
    """Server-sent events: `new EventSource("/photos/ID/events")` in the browser."""
    queue: asyncio.Queue[str | None] = asyncio.Queue()
    watchers[job_id].add(queue)  # before the look, so that no change between both is missed
    try:
        job = await request.app.state.maskq.get(job_id)
    except JobNotFound as error:
        stop_watching(job_id, queue)
        raise HTTPException(404, str(error)) from None
    queue.put_nowait(job.status.value)
    return StreamingResponse(stream(job_id, queue), media_type="text/event-stream")


async def stream(job_id: str, queue: asyncio.Queue[str | None]) -> AsyncIterator[str]:
    try:
        while status := await queue.get():
            yield f"data: {status}\n\n"
            if status not in ("queued", "running"):
                return  # the page closes its EventSource at a status that ends the job
    finally:
        stop_watching(job_id, queue)


def stop_watching(job_id: str, queue: asyncio.Queue[str | None]) -> None:
    watchers[job_id].discard(queue)
    if not watchers[job_id]:
        del watchers[job_id]


async def tell_watchers(client: AsyncClient) -> None:
    while True:
        try:
            async for event in client.events():
                for queue in watchers.get(event.subject, ()):
                    queue.put_nowait(event.data["status"])
        except MaskqError:  # browsers reconnect and get the present status
            for queues in watchers.values():
                for queue in queues:
                    queue.put_nowait(None)
            await asyncio.sleep(1)
