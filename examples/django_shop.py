"""A Django project in one file: a view that takes photos, a webhook, and a Celery task that follows.

    maskq up --env-file maskq.env &
    set -a; . ./maskq.env; set +a      # once it says 'all ready'
    celery --workdir examples -A django_shop worker -Q django-shop &
    python examples/django_shop.py runserver 8001
    curl -F photo=@photo.jpg http://127.0.0.1:8001/photos
    curl http://127.0.0.1:8001/photos/ID

Needs `pip install maskq django 'celery[redis]'`.
"""

from __future__ import annotations

import os
import sys
import tempfile

import django
from celery import Celery
from django.conf import settings
from django.core.cache import cache
from django.core.handlers.wsgi import WSGIHandler
from django.core.management import execute_from_command_line
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.urls import path, reverse
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_POST

from maskq import Client, InvalidRequest, JobNotFound, webhooks

BROKER = os.environ.get("MASKQ_REDIS_URL", "memory://")
settings.configure(
    DEBUG=True,
    SECRET_KEY="only for the example",  # noqa: S106
    ALLOWED_HOSTS=["*"],
    ROOT_URLCONF=__name__,
    CACHES={
        "default": {
            "BACKEND": "django.core.cache.backends.filebased.FileBasedCache",
            "LOCATION": os.environ.get("SHOP_CACHE", tempfile.gettempdir() + "/shop-cache"),
        }
    },
)
django.setup()
celery = Celery("django-shop", broker=BROKER)
celery.conf.task_default_queue = "django-shop"

# Made once, at import. It connects at its first use, in each process by itself: gunicorn --preload and
# Celery's prefork pool fork after the import.
client = Client.from_env()


@csrf_exempt  # so that curl works; a form of your pages has a token
@require_POST
def submit(request: HttpRequest) -> HttpResponse:
    """Returns as soon as the job is safe; no request waits for the model."""
    if "photo" not in request.FILES:
        return JsonResponse({"error": "send the image in the field photo"}, status=422)
    try:
        job = client.submit(
            request.FILES["photo"].read(),
            outputs={"mask", "stats"},
            webhook=request.build_absolute_uri(reverse("on_end")),
        )
    except InvalidRequest as error:
        return JsonResponse({"error": str(error)}, status=422)
    return JsonResponse({"id": job.id}, status=202)


@csrf_exempt
@require_POST
def on_end(request: HttpRequest) -> HttpResponse:
    """Answers at once; a task does the work. A delivery may come twice."""
    try:
        event = webhooks.verify(request.headers, request.body)
    except webhooks.WebhookRefused as error:
        return JsonResponse({"error": str(error)}, status=400)
    if event.job().result:
        measure.delay(event.subject)
    return HttpResponse(status=204)


def look(request: HttpRequest, job_id: str) -> HttpResponse:
    try:
        job = client.get(job_id)
    except JobNotFound as error:
        return JsonResponse({"error": str(error)}, status=404)
    return JsonResponse({"status": job.status, "largest": cache.get(job_id)})


@celery.task(name="shop.measure")  # the name is the same for the web server and the worker
def measure(job_id: str) -> str:
    """Send ids to tasks, never handles: they hold connections."""
    result = client.get(job_id).result()
    mask = result.mask()  # a Pillow image; a pixel is a class id
    counts = mask.histogram()
    largest = result.labels[counts.index(max(counts))]
    cache.set(job_id, largest)  # a real project has a table
    return largest


urlpatterns = [
    path("photos", submit),
    path("photos/<job_id>", look),
    path("hooks/maskq", on_end, name="on_end"),
]
application = WSGIHandler()

if __name__ == "__main__":
    execute_from_command_line(sys.argv)
