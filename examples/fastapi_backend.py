"""A backend that submits photos and is told by webhook when their masks are there.

    maskq up --env-file maskq.env &
    set -a; . ./maskq.env; set +a      # once it says 'all ready'
    uvicorn --app-dir examples fastapi_backend:app
    curl --data-binary @photo.jpg http://127.0.0.1:8000/photos
    curl http://127.0.0.1:8000/photos/ID

Needs `pip install maskq fastapi uvicorn`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI, HTTPException, Request

from maskq import AsyncClient, Event, webhooks

ended: dict[str, Event] = {}  # by job; a real backend has a table


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    async with AsyncClient.from_env() as client:
        app.state.maskq = client
        yield


app = FastAPI(lifespan=lifespan)


@app.post("/photos", status_code=202)
async def submit(request: Request) -> dict[str, str]:
    """Returns as soon as the job is safe; nothing waits for the model."""
    job = await request.app.state.maskq.submit(
        await request.body(),
        outputs={"mask", "stats"},
        webhook=str(request.url_for("on_end")),
    )
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
