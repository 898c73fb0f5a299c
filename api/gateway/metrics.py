"""Prometheus metrics; labels are bound once, not per request."""

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
    generate_latest,
)

LATENCY_BUCKETS_S = (
    0.0002,
    0.0005,
    0.001,
    0.002,
    0.005,
    0.01,
    0.025,
    0.05,
    0.1,
    0.25,
    0.5,
    1.0,
    2.0,
    5.0,
)


class Metrics:
    """All figures of one gateway, in a registry of its own."""

    def __init__(self) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self.registry = CollectorRegistry()
        requests = Counter(
            "holdfast_http_requests",
            "Requests by route and status class",
            ["route", "status"],
            registry=self.registry,
        )
        self._requests = requests
        self._bound: dict[tuple[str, int], Counter] = {}
        latency = Histogram(
            "holdfast_order_latency_seconds",
            "From request to durable answer, by way in",
            ["way"],
            buckets=LATENCY_BUCKETS_S,
            registry=self.registry,
        )
        self.rest_latency = latency.labels("rest")
        self.stream_latency = latency.labels("stream")
        outcomes = Counter(
            "holdfast_orders", "Orders by what became of the request", ["outcome"], registry=self.registry
        )
        self.orders_accepted = outcomes.labels("accepted")
        self.orders_rejected = outcomes.labels("rejected")
        self.orders_queued = outcomes.labels("queued")
        self.orders_replayed = outcomes.labels("replayed")
        self.orders_failed = outcomes.labels("failed")
        self.engine_up = Gauge("holdfast_engine_up", "1 when the engine link stands", registry=self.registry)
        self.database_up = Gauge(
            "holdfast_database_up", "1 when the database answers", registry=self.registry
        )
        self.venue_state = Gauge("holdfast_venue_state", "VenueState as a number", registry=self.registry)
        self.epoch = Gauge("holdfast_epoch", "Epoch of the engine last seen", registry=self.registry)
        self.sequence = Gauge("holdfast_sequence", "Last released sequence seen", registry=self.registry)
        self.projection_lag = Gauge(
            "holdfast_projection_lag_commands",
            "Released commands that PostgreSQL lacks",
            registry=self.registry,
        )
        self.in_flight = Gauge(
            "holdfast_requests_in_flight", "Commands at the engine", registry=self.registry
        )
        self.queue_waiting = Gauge(
            "holdfast_enqueue_waiting", "Submissions on their way into the queue", registry=self.registry
        )
        self.streams = Gauge("holdfast_stream_connections", "WebSocket connections", registry=self.registry)
        self.slow_streams = Counter(
            "holdfast_stream_slow", "Connections closed because they did not keep up", registry=self.registry
        )
        self.books_gaps = Counter(
            "holdfast_event_gaps", "Times the event stream was resumed after a gap", registry=self.registry
        )

    def count(self, route: str, status: int) -> None:
        """One request was answered."""
        bound = self._bound.get((route, status))
        if bound is None:
            bound = self._bound[(route, status)] = self._requests.labels(route, str(status))
        bound.inc()

    def text(self) -> bytes:
        """The exposition format."""
        return generate_latest(self.registry)
