"""A rolling update of N containers: by the controller from a changed manifest, and by bare calls."""

import queue
import statistics
import threading
import time

from burst import BARE, DEADLINE_S, OURS, body, settle
from controller import Controller, service
from engine import Events, label

STOP_TIMEOUT_S = 2


def ours(binary, lab, engines, count):
    """Seconds from the manifest to the last start and the last end, and bodies of the old and the new containers."""
    with Controller(binary, lab.manifests) as controller:
        controller.write("web.yaml", service(count, minimum_healthy_s=0))
        controller.wait_steady()
        old = _views(engines)
        with Events(engines) as events:
            at = controller.write("web.yaml", service(count, minimum_healthy_s=0, version=2))
            last = _last(events, OURS, count)
        controller.wait_steady()
        bodies = {engine: (_bodies(old[engine]), _bodies(new)) for engine, new in _views(engines).items()}
    return (last - at) / 1e9, bodies


def bare(bodies, concurrency):
    """Seconds that the same takes when `concurrency` workers a host each start a new container and then end an old one."""
    gate = threading.Event()
    failures = queue.Queue()
    jobs = []
    for engine, (old, new) in bodies.items():
        running, waiting = queue.Queue(), queue.Queue()
        for number, request in enumerate(old):
            container = engine.create(f"bench-old-{number}", request)
            engine.start(container)
            running.put(container)
        for number, request in enumerate(new):
            waiting.put((f"bench-new-{number}", request))
        jobs += [
            threading.Thread(target=_worker, args=(gate, engine, waiting, running, failures))
            for _ in range(concurrency)
        ]
    with Events(list(bodies)) as events:
        for job in jobs:
            job.start()
        at = time.time_ns()
        gate.set()
        last = _last(events, BARE, sum(len(new) for _, new in bodies.values()), failures)
        for job in jobs:
            job.join()
    return (last - at) / 1e9


def _worker(gate, engine, waiting, running, failures):
    try:
        engine.version()
        gate.wait()
        while _start_one(engine, waiting) | _end_one(engine, running):
            pass
    except Exception as error:  # noqa: BLE001 - told to who waits
        failures.put(error)


def _start_one(engine, waiting):
    try:
        name, request = waiting.get_nowait()
    except queue.Empty:
        return False
    engine.start(engine.create(name, request))
    return True


def _end_one(engine, running):
    try:
        container = running.get_nowait()
    except queue.Empty:
        return False
    engine.stop(container, STOP_TIMEOUT_S)
    engine.remove(container)
    return True


def _views(engines):
    return {engine: [engine.inspect(c["Id"]) for c in engine.list(OURS)] for engine in engines}


def _bodies(views):
    return [body(view) for view in views if view["State"]["Running"]]


def _last(events, key, count, failures=None):
    """When `count` containers had started and as many had ended."""
    seen = {"start": 0, "die": 0}

    def wanted(_host, event):
        if label(event, key) is None:
            return None
        seen[event["Action"]] += 1
        return "last" if min(seen.values()) >= count else "one"

    try:
        what = f"{count} containers start and as many end"
        return max(event["timeNano"] for _, event in events.until(wanted, what, DEADLINE_S))
    except TimeoutError:
        if failures and not failures.empty():
            raise failures.get() from None
        raise


def compare(binary, lab, engines, count, concurrencies, samples, say):
    """Ours, and bare at the concurrency with the best median, `samples` times each."""
    ours_s, by_concurrency = [], {concurrency: [] for concurrency in concurrencies}
    for _ in range(samples):
        seconds, bodies = ours(binary, lab, engines, count)
        settle(engines)
        ours_s.append(seconds)
        say(f"  {count} updated: ours {seconds:.2f} s")
        for concurrency, bare_s in by_concurrency.items():
            bare_s.append(bare(bodies, concurrency))
            settle(engines)
            say(f"  {count} updated: bare, {concurrency} at once a host: {bare_s[-1]:.2f} s")
    best = min(concurrencies, key=lambda concurrency: statistics.median(by_concurrency[concurrency]))
    return ours_s, by_concurrency, best
