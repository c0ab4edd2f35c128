"""mcpconn's metrics in Prometheus's format."""

from opentelemetry import metrics
from opentelemetry.exporter.prometheus import PrometheusMetricReader
from opentelemetry.sdk.metrics import MeterProvider
from prometheus_client import generate_latest


def configure() -> None:
    """Once, when the program starts."""
    metrics.set_meter_provider(
        MeterProvider(metric_readers=[PrometheusMetricReader(scope_info_enabled=False)])
    )


def scrape() -> str:
    """What Prometheus reads at /metrics."""
    return generate_latest().decode()
