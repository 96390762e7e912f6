"""What Prometheus scrapes. nginx does not pass it on: it is for the inside."""

from fastapi import APIRouter
from fastapi.responses import Response
from prometheus_client import CONTENT_TYPE_LATEST
from redis import RedisError

from app.core import metrics, store

router = APIRouter()


@router.get("/metrics")
def scrape() -> Response:
    try:
        metrics.active_users.set(store.active_users())
    except RedisError:
        # The other three are still true; the gauge keeps its last value.
        pass
    return Response(metrics.exposition(), media_type=CONTENT_TYPE_LATEST)
