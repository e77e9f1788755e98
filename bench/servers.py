"""The servers that are compared: how each is installed, started, asked and stopped, and what it costs while it runs."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import httpx
import psutil

from bench.invented import BENCH, CATEGORIES, NETWORK, NUMBERS, SHARED, TREES, Record, Workload, machine
from configs.settings import PHONE_HOME_OFF

PEERS = Path(__file__).parent / "peers"
OURS = Path(sys.executable).parent
NAMES = [*NUMBERS, *CATEGORIES]
STARTS_WITHIN_S = 120
INSTALLS_WITHIN_S = 480
TOLERANCE = 1e-6
JSON, ARROW = "application/json", "application/vnd.apache.arrow.stream"
MODEL = ("scikit-learn==1.9.1", "numpy==2.4.6", "pandas==3.0.6")
UVICORN = ("uvicorn==0.54.0", "uvloop==0.23.0", "httptools==0.9.0")

Kind = Literal["ours", "limit", "batching peer", "tuned peer", "peer", "start only"]
"""A tuned peer is one that its own guide does not lead to: here, tensors laid out by hand."""


@dataclass(frozen=True)
class Server:
    """`command(bin, port)` starts it, `bin` being the folder of its Python; `paths` is where each workload goes.

    `risks` reads the risks out of an answer; without it an answer holds none, and every 200 is right.
    """

    key: str
    title: str
    kind: Kind
    command: Callable[[Path, int], list[str]]
    paths: dict[str, str]
    body: Callable[[Sequence[Record]], bytes]
    risks: Callable[[Any], list[float]] | None
    requirements: tuple[str, ...] = ()
    """What its own virtual environment holds; none: it runs in ours."""

    venv: str = ""
    variables: tuple[tuple[str, str], ...] = ()
    content_type: str = JSON

    @property
    def bin(self) -> Path:
        return BENCH / "venvs" / self.venv / "bin" if self.venv else OURS

    def payloads(self, workload: Workload) -> Path:
        """This workload's bodies in the server's own protocol: each one's length on a line, then itself."""
        return BENCH / "payloads" / f"{self.body.__name__.strip('_')}-{workload.key}"


@dataclass
class Running:
    server: Server
    process: subprocess.Popen[bytes]
    port: int
    log: Path
    started_s: float = 0.0

    def client(self) -> httpx.Client:
        return httpx.Client(base_url=f"http://127.0.0.1:{self.port}", timeout=60, trust_env=False)

    def ask(self, client: httpx.Client, workload: Workload, number: int) -> list[float]:
        """The risks that payload `number` is answered with. Raises ValueError for any other answer."""
        body, headers = self.server.body(workload.records[number]), {"Content-Type": self.server.content_type}
        answer = client.post(self.server.paths[workload.key], content=body, headers=headers)
        if answer.status_code != 200:
            raise ValueError(f"{self.server.title}: {answer.status_code} {answer.text:.200}")
        return self.server.risks(answer.json()) if self.server.risks else list(workload.expected[number])

    def everyone(self) -> list[psutil.Process]:
        """The server and all that it started, and left to us: one server runs at a time, and the driver has ended."""
        found: list[psutil.Process] = psutil.Process().children(recursive=True)
        return found

    def cpu_s(self) -> dict[int, float]:
        """User and system seconds of each process so far."""
        found = {}
        for process in self.everyone():
            with suppress(psutil.NoSuchProcess):
                times = process.cpu_times()
                found[process.pid] = times.user + times.system
        return found

    def rss_mb(self) -> float:
        """Resident memory of the tree; what processes share is counted for each."""
        total = 0
        for process in self.everyone():
            with suppress(psutil.NoSuchProcess):
                total += process.memory_info().rss
        return total / 1e6

    def stop(self) -> None:
        """End the tree by its process numbers: asked first, killed after five seconds."""
        everyone = self.everyone()
        with suppress(ProcessLookupError):
            self.process.send_signal(signal.SIGINT)
        _, left = psutil.wait_procs(everyone, timeout=5)
        for process in {*left, *self.everyone()}:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(left, timeout=5)
        self.process.wait()


def servers(workloads: Sequence[Workload]) -> list[Server]:
    """Ours, the limits and the peers, in the order they are told in."""
    sizes = {f"/{workload.key}": workload.answer_bytes for workload in workloads}
    uvicorn = ["--host", "127.0.0.1", "--loop", "uvloop", "--http", "httptools", "--no-access-log"]
    ours = tuple((f"MEDIMIND_{name.upper()}", str(getattr(machine(), name))) for name in ("home", "configs", "data"))
    contract = _paths(f"/v1/models/{TREES}/predict", f"/v1/models/{NETWORK}/predict")
    own = _paths("/trees", "/network")
    many = {"many": contract["many"]}

    def medimind(workers: int) -> Callable[[Path, int], list[str]]:
        options = ["--workers", str(workers)]
        return lambda folder, port: [
            *(str(folder / "python"), "-m", "pipelines.cli", "serve", TREES, NETWORK, "--port", str(port)),
            *options,
        ]

    def on_uvicorn(app: str, *options: str) -> Callable[[Path, int], list[str]]:
        return lambda folder, port: [
            *(str(folder / "python"), "-m", "uvicorn", app, "--port", str(port), "--log-level", "warning"),
            *uvicorn,
            *options,
        ]

    def bentoml(service: str) -> Callable[[Path, int], list[str]]:
        return lambda folder, port: [
            *(str(folder / "python"), "-m", "bentoml", "serve", f"on_bentoml:{service}", "--working-dir", str(PEERS)),
            *("--host", "127.0.0.1", "--port", str(port)),
        ]

    def script(name: str) -> Callable[[Path, int], list[str]]:
        return lambda folder, port: [str(folder / "python"), str(PEERS / name), str(port)]

    bento = ("bentoml==1.4.39", *UVICORN, *MODEL)
    mlserver = ("mlserver==1.7.1", "uvloop==0.21.0", *MODEL)  # with a newer uvloop its workers die at their start
    fast = ("fastapi==0.150.0", *UVICORN, *MODEL)
    return [
        Server("ours", "MediMind", "ours", medimind(1), contract, _records, _of_ours, variables=ours),
        Server("ours_columns", "MediMind, columns", "ours", medimind(1), many, _columns, _of_ours, variables=ours),
        Server(
            "ours_arrow",
            "MediMind, Arrow",
            "ours",
            medimind(1),
            many,
            _arrow,
            _of_ours,
            variables=ours,
            content_type=ARROW,
        ),
        Server("ours2", "MediMind, two workers", "ours", medimind(2), contract, _records, _of_ours, variables=ours),
        Server(
            "handler",
            "the same handler on bare uvicorn",
            "limit",
            on_uvicorn("ours_on_uvicorn:build", "--factory"),
            contract,
            _records,
            _of_ours,
            variables=(*ours, ("MEDIMIND_SERVED", f"{TREES},{NETWORK}")),
        ),
        Server(
            "echo",
            "bare uvicorn echo, no model",
            "limit",
            on_uvicorn("echo:app"),
            {workload.key: f"/{workload.key}" for workload in workloads},
            _records,
            None,
            variables=(("BENCH_ANSWER_BYTES", json.dumps(sizes)),),
        ),
        Server("empty", "an empty BentoML service", "start only", bentoml("Empty"), own, _records, None),
        Server(
            "litserve",
            "LitServe, batching",
            "batching peer",
            script("on_litserve.py"),
            own,
            _records,
            _of_risks,
            ("litserve==0.2.19", *UVICORN, *MODEL),
            "litserve",
        ),
        Server(
            "bentoml_batching",
            "BentoML, adaptive batching",
            "batching peer",
            bentoml("Batching"),
            own,
            _records,
            lambda said: said,
            bento,
            "bentoml",
        ),
        Server(
            "mlserver",
            "MLServer, adaptive batching, pandas codec",
            "batching peer",
            _mlserver,
            _paths("/v2/models/columns/infer", "/v2/models/network/infer"),
            _heads,
            _of_outputs,
            mlserver,
            "mlserver",
        ),
        Server(
            "mlserver_tensors",
            "MLServer, adaptive batching, two tensors",
            "tuned peer",
            _mlserver,
            {"one": "/v2/models/trees/infer", "many": "/v2/models/trees/infer"},
            _tensors,
            _of_outputs,
            mlserver,
            "mlserver",
        ),
        Server(
            "ray",
            "Ray Serve, batching",
            "batching peer",
            script("on_ray.py"),
            own,
            _records,
            _of_risks,
            ("ray[serve]==2.60.0", *UVICORN, *MODEL),
            "ray",
            (("RAY_USAGE_STATS_ENABLED", "0"), ("RAY_AUTH_MODE", "disabled")),
        ),
        Server(
            "fastapi_async",
            "FastAPI on uvicorn, async",
            "peer",
            on_uvicorn("on_fastapi:app"),
            _paths("/async/trees", "/async/network"),
            _records,
            _of_risks,
            fast,
            "fastapi",
        ),
        Server(
            "fastapi_threads",
            "FastAPI on uvicorn, threads",
            "peer",
            on_uvicorn("on_fastapi:app"),
            _paths("/threads/trees", "/threads/network"),
            _records,
            _of_risks,
            fast,
            "fastapi",
        ),
        Server(
            "bentoml",
            "BentoML, plain",
            "peer",
            bentoml("Plain"),
            own,
            _records,
            lambda said: said,
            bento,
            "bentoml",
        ),
        Server(
            "mlflow",
            "mlflow models serve",
            "peer",
            _mlflow,
            _paths("/invocations", "/invocations"),
            _frame,
            lambda said: said["predictions"],
            ("mlflow==3.17.2", *UVICORN, *MODEL),
            "mlflow",
            (("UVICORN_ACCESS_LOG", "0"),),
        ),
    ]


def install(server: Server) -> str | None:
    """Make the server's virtual environment, unless it is there as it should be; the reason if that failed."""
    if not server.venv:
        return None
    folder = server.bin.parent
    stamp = folder / ".installed"
    wanted = "\n".join(server.requirements)
    if stamp.exists() and stamp.read_text() == wanted:
        return None
    print(f"installing {server.venv}: {', '.join(server.requirements)}", flush=True)
    shutil.rmtree(folder, ignore_errors=True)
    uv = [str(OURS / "uv"), "pip", "install", "--quiet", "--python", str(server.bin / "python"), *server.requirements]
    try:
        for command in ([sys.executable, "-m", "venv", "--without-pip", str(folder)], uv):
            subprocess.run(command, check=True, capture_output=True, text=True, timeout=INSTALLS_WITHIN_S)
    except subprocess.TimeoutExpired:
        return f"its installation did not end in {INSTALLS_WITHIN_S} s"
    except subprocess.CalledProcessError as exc:
        return f"it could not be installed: {exc.stderr.strip().splitlines()[-1:]}"
    stamp.write_text(wanted)
    return None


def environment(server: Server) -> dict[str, str]:
    """One numeric thread for everybody, no phone-home, and the server's own Python first."""
    env = {**os.environ, **PHONE_HOME_OFF, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    for variable in ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE"):  # a kernel chosen by hand would slow numpy's network
        env.pop(variable, None)
    env |= {"PATH": f"{server.bin}:{env['PATH']}", "BENCH_SHARED": str(SHARED), "PYTHONDONTWRITEBYTECODE": "1"}
    env |= {"BENTOML_HOME": str(BENCH / "bentoml"), "PYTHONPATH": str(PEERS)}
    return {**env, **dict(server.variables)}


def start(server: Server, workload: Workload, cores: str) -> Running:
    """Start the server in a session of its own, on these cores, and wait for its first right answer.

    Raises RuntimeError, with the end of its log, if there is none.
    """
    port = free_port()
    log = BENCH / "logs" / f"{server.key}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    command = server.command(server.bin, port)
    began = time.monotonic()
    with open(log, "wb") as out:
        process = subprocess.Popen(
            ["taskset", "-c", cores, *command],
            stdout=out,
            stderr=subprocess.STDOUT,
            cwd=log.parent,
            env=environment(server),
            start_new_session=True,
        )
    running = Running(server, process, port, log)
    try:
        with running.client() as client:
            while time.monotonic() - began < STARTS_WITHIN_S and process.poll() is None:
                if _answers(running, client, workload):
                    running.started_s = time.monotonic() - began
                    return running
                time.sleep(0.02)
        raise RuntimeError(f"{server.title} does not answer: {log.read_text(errors='replace')[-600:]}")
    except BaseException:
        running.stop()
        raise


def _answers(running: Running, client: httpx.Client, workload: Workload) -> bool:
    try:
        return largest_difference(running.ask(client, workload, 0), workload.expected[0]) <= TOLERANCE
    except (httpx.TransportError, ValueError):
        return False


def largest_difference(said: Sequence[float], expected: Sequence[float]) -> float:
    if len(said) != len(expected):
        return float("inf")
    return max(abs(one - other) for one, other in zip(said, expected, strict=True))


def free_port() -> int:
    """A port that nobody listens on, with the two after it free as well."""
    while True:
        with closing(socket.socket()) as probe:
            probe.bind(("127.0.0.1", 0))
            port: int = probe.getsockname()[1]
        try:
            for beside in (port + 1, port + 2):
                with closing(socket.socket()) as probe:
                    probe.bind(("127.0.0.1", beside))
            return port
        except OSError:
            continue


def write_payloads(chosen: Sequence[Server], workloads: Sequence[Workload]) -> None:
    shutil.rmtree(BENCH / "payloads", ignore_errors=True)
    for server in chosen:
        for workload in workloads:
            path = server.payloads(workload)
            if workload.key in server.paths and not path.exists():
                path.parent.mkdir(parents=True, exist_ok=True)
                bodies = [server.body(records) for records in workload.records]
                path.write_bytes(b"".join(b"%d\n%b" % (len(body), body) for body in bodies))


def _paths(trees: str, network: str) -> dict[str, str]:
    return {"one": trees, "many": trees, "network": network}


def _records(records: Sequence[Record]) -> bytes:
    return _json({"records": list(records)})


def _columns(records: Sequence[Record]) -> bytes:
    return _json({"columns": {name: [record.get(name) for record in records] for name in NAMES}})


def _arrow(records: Sequence[Record]) -> bytes:
    import pyarrow as pa

    table = pa.table({name: [record.get(name) for record in records] for name in NAMES})
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as stream:
        stream.write_table(table)
    body: bytes = sink.getvalue().to_pybytes()
    return body


def _frame(records: Sequence[Record]) -> bytes:
    return _json({"dataframe_records": list(records)})


def _heads(records: Sequence[Record]) -> bytes:
    """The Open Inference Protocol with one input a column, as MLServer's pandas codec reads it."""
    if not _has_text(records):
        return _tensors(records)
    inputs = [_tensor(name, records, [name], "FP64") for name in NUMBERS]
    texts = [_tensor(name, records, [name], "BYTES") | {"parameters": {"content_type": "str"}} for name in CATEGORIES]
    return _json({"inputs": inputs + texts, "parameters": {"content_type": "pd"}})


def _tensors(records: Sequence[Record]) -> bytes:
    """The Open Inference Protocol at its leanest: the numbers as one input, the categories as another."""
    if not _has_text(records):
        return _json({"inputs": [_tensor("X", records, NAMES, "FP32")]})
    tensors = [_tensor("numbers", records, list(NUMBERS), "FP64")]
    return _json({"inputs": [*tensors, _tensor("categories", records, list(CATEGORIES), "BYTES")]})


def _tensor(name: str, records: Sequence[Record], fields: Sequence[str], datatype: str) -> dict[str, Any]:
    data = [record.get(field) for record in records for field in fields]
    return {"name": name, "shape": [len(records), len(fields)], "datatype": datatype, "data": data}


def _has_text(records: Sequence[Record]) -> bool:
    return isinstance(records[0][next(iter(CATEGORIES))], str)


def _json(document: Any) -> bytes:
    return json.dumps(document, separators=(",", ":")).encode()


def _of_ours(said: Any) -> list[float]:
    return [item["risk"] for item in said["predictions"]]


def _of_outputs(said: Any) -> list[float]:
    found: list[float] = said["outputs"][0]["data"]
    return found


def _of_risks(said: Any) -> list[float]:
    found: list[float] = said["risks"]
    return found


def _mlserver(folder: Path, port: int) -> list[str]:
    settings = BENCH / "mlserver"
    python = str(folder / "python")
    write = [python, str(PEERS / "on_mlserver.py"), str(settings), str(port), "1"]
    subprocess.run(write, check=True, capture_output=True, env={**os.environ, "PYTHONPATH": str(PEERS)}, timeout=120)
    return [str(folder / "mlserver"), "start", str(settings)]


def _mlflow(folder: Path, port: int) -> list[str]:
    model = BENCH / "mlflow_model"
    if not model.exists():
        env = {**os.environ, **PHONE_HOME_OFF, "PYTHONPATH": str(PEERS)}
        command = [str(folder / "python"), str(PEERS / "on_mlflow.py"), str(model)]
        subprocess.run(command, check=True, capture_output=True, env=env, cwd=BENCH, timeout=120)
    return [
        *(str(folder / "mlflow"), "models", "serve", "--model-uri", str(model), "--env-manager", "local"),
        *("--host", "127.0.0.1", "--port", str(port), "--workers", "1"),
    ]
