"""One host's Docker Engine, spoken to on its own socket."""

import http.client
import json
import queue
import socket
import threading
import time
from urllib.parse import quote

# Without a version the engine takes its own newest.
API = ""
CALL_TIMEOUT_S = 60


class UnixConnection(http.client.HTTPConnection):
    """HTTP on a Unix socket."""

    def __init__(self, path, timeout_s):
        super().__init__("localhost", timeout=timeout_s)
        self.path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.path)


class EngineError(RuntimeError):
    """The engine refused."""


class Engine:
    """Calls on kept-alive connections, one per thread."""

    def __init__(self, host, path):
        self.host = host
        self.path = path
        self._local = threading.local()

    def call(self, method, path, body=None):
        connection = getattr(self._local, "connection", None)
        if connection is None:
            connection = self._local.connection = UnixConnection(self.path, CALL_TIMEOUT_S)
        data = None if body is None else json.dumps(body)
        headers = {} if data is None else {"Content-Type": "application/json"}
        try:
            connection.request(method, API + path, data, headers)
            response = connection.getresponse()
            answer = response.read()
        except (OSError, http.client.HTTPException):
            self._local.connection = None
            connection.close()
            raise
        if response.status >= 400:
            raise EngineError(f"{self.host}: {method} {path}: {response.status} {answer.decode(errors='replace')}")
        return json.loads(answer) if answer else None

    def version(self):
        return self.call("GET", "/version")["Version"]

    def list(self, label):
        filters = quote(json.dumps({"label": [label]}))
        return self.call("GET", f"/containers/json?all=1&filters={filters}")

    def inspect(self, container):
        return self.call("GET", f"/containers/{container}/json")

    def create(self, name, body):
        return self.call("POST", f"/containers/create?name={name}", body)["Id"]

    def start(self, container):
        self.call("POST", f"/containers/{container}/start")

    def stop(self, container, timeout_s):
        self.call("POST", f"/containers/{container}/stop?t={timeout_s}")

    def kill(self, container):
        self.call("POST", f"/containers/{container}/kill")

    def remove(self, container):
        self.call("DELETE", f"/containers/{container}?force=true&v=true")

    def follow(self, on_event):
        """Calls `on_event(event)` for each container event from now on, until the returned function is called."""
        filters = quote(json.dumps({"type": ["container"], "event": ["start", "die"]}))
        connection = UnixConnection(self.path, None)
        # `since`: what happens until the engine has subscribed us is told afterwards.
        connection.request("GET", f"{API}/events?since={time.time():.9f}&filters={filters}")
        stopped = threading.Event()

        def read():
            try:
                response = connection.getresponse()
                while line := response.readline():
                    on_event(json.loads(line))
            except (OSError, ValueError, http.client.HTTPException, AttributeError):
                if not stopped.is_set():
                    raise

        threading.Thread(target=read, daemon=True).start()

        def stop():
            stopped.set()
            try:
                connection.sock.shutdown(socket.SHUT_RDWR)
            except (OSError, AttributeError):
                pass
            connection.close()

        return stop


class Events:
    """Events of several engines, as they come: (host, event). For a `with` block."""

    def __init__(self, engines):
        self._engines = engines
        self._queue = queue.Queue()
        self._stops = []

    def __enter__(self):
        for engine in self._engines:
            self._stops.append(engine.follow(lambda event, host=engine.host: self._queue.put((host, event))))
        return self

    def __exit__(self, *_):
        for stop in self._stops:
            stop()

    def until(self, wanted, what, deadline_s):
        """Events for which `wanted(host, event)` is true, until it has returned `"last"`.

        Raises TimeoutError."""
        end = time.monotonic() + deadline_s
        kept = []
        while True:
            left = end - time.monotonic()
            try:
                host, event = self._queue.get(timeout=max(left, 0.001))
            except queue.Empty:
                raise TimeoutError(f"not within {deadline_s} s: {what}") from None
            verdict = wanted(host, event)
            if verdict:
                kept.append((host, event))
            if verdict == "last":
                return kept


def label(event, key):
    return event["Actor"]["Attributes"].get(key)


def remove_all(engines, labels, per_host=3):
    """Removes every container with one of the labels, on all hosts at once."""
    jobs = []
    for engine in engines:
        ids = queue.Queue()
        for one in {c["Id"] for key in labels for c in engine.list(key)}:
            ids.put(one)

        def work(engine=engine, ids=ids):
            while True:
                try:
                    engine.remove(ids.get_nowait())
                except queue.Empty:
                    return

        jobs += [threading.Thread(target=work) for _ in range(per_host)]
    for job in jobs:
        job.start()
    for job in jobs:
        job.join()
    left = sum(len(engine.list(key)) for engine in engines for key in labels)
    if left:
        raise EngineError(f"{left} containers could not be removed")
