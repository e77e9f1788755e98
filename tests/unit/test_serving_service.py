"""What the workers count of networks, in BentoML's registry of several processes, as Prometheus reads it."""

COUNT = """
from bentoml._internal.configuration.containers import BentoMLContainer
from serving.service import _counters

counters = _counters()
counters.formed("angina", 12, 0.02)
counters.device.computed("angina", 8, 0.004)
counters.device.happened("angina", "evicted")
counters.held("angina", 400, 20)
counters.held("angina", 0, 30)
for line in BentoMLContainer.metrics_client.get().generate_latest().decode().splitlines():
    if line.startswith("medimind_") and "_bucket" not in line:
        print(line)
"""


def test_what_a_network_takes_and_does_is_told_by_model(child, tmp_path):
    told, _ = child(COUNT, PROMETHEUS_MULTIPROC_DIR=str(tmp_path)).communicate(timeout=120)

    lines = set(told.splitlines())
    assert {
        'medimind_device_memory_bytes{model="angina",of="weights"} 0.0',
        'medimind_device_memory_bytes{model="angina",of="batch"} 30.0',
        'medimind_device_events_total{event="evicted",model="angina"} 1.0',
        'medimind_batch_records_sum{model="angina"} 12.0',
        'medimind_queue_seconds_sum{model="angina"} 0.02',
        'medimind_device_seconds_sum{model="angina"} 0.004',
    } <= lines, told


HOLD = """
import os, signal
from serving.service import _counters

_counters().held("angina", 400, 20)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_a_killed_worker_held_is_held_no_more_once_it_is_replaced(child, tmp_path):
    child(HOLD, PROMETHEUS_MULTIPROC_DIR=str(tmp_path)).communicate(timeout=120)

    told, _ = child(COUNT, PROMETHEUS_MULTIPROC_DIR=str(tmp_path)).communicate(timeout=120)

    assert 'medimind_device_memory_bytes{model="angina",of="weights"} 0.0' in told.splitlines(), told
