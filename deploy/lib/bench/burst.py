"""N containers on the fleet at once: by the controller from a manifest, and by bare calls."""

import calendar
import queue
import statistics
import threading
import time

from controller import Controller, service
from engine import Events, label, remove_all

OURS = "dev.roadstead.task"
BARE = "bench.bare.task"
DEADLINE_S = 120
QUIET_PERIOD_MS = 200


def settle(engines):
    remove_all(engines, [OURS, BARE])
    # Network namespaces and mounts are taken down after the engine's answer.
    time.sleep(1)


def ours(binary, lab, engines, count, then=None):
    """Seconds from the manifest to the last start, milliseconds to the first create, and bodies to do the same again.

    `then(controller)` is called while they run."""
    with Controller(binary, lab.manifests) as controller, Events(engines) as events:
        at = controller.write("web.yaml", service(count))
        last = last_start(events, OURS, count)
        views = {engine: [engine.inspect(c["Id"]) for c in engine.list(OURS)] for engine in engines}
        running = [view for host in views.values() for view in host if view["State"]["Running"]]
        if len(running) != count:
            raise RuntimeError(f"{len(running)} of {count} containers run")
        first = min(created_at_ns(view) for view in running)
        bodies = {engine: [body(view) for view in host] for engine, host in views.items()}
        if then:
            then(controller)
    return (last - at) / 1e9, (first - at) / 1e6 - QUIET_PERIOD_MS, bodies


def _make(engine, name, body):
    engine.start(engine.create(name, body))


def bare(bodies, concurrency, make=_make, starts=1):
    """Seconds that the same containers take with `concurrency` creates and starts at once on each host.

    `make(engine, name, body)` makes one of them, which is so many `starts`."""
    gate = threading.Event()
    jobs = []
    failures = queue.Queue()
    for engine, host_bodies in bodies.items():
        work = queue.Queue()
        for number, body in enumerate(host_bodies):
            work.put((f"bench-bare-{number}", body))
        jobs += [threading.Thread(target=_worker, args=(gate, engine, work, failures, make)) for _ in range(concurrency)]
    with Events(list(bodies)) as events:
        for job in jobs:
            job.start()
        at = time.time_ns()
        gate.set()
        last = last_start(events, BARE, starts * sum(len(host) for host in bodies.values()), failures)
        for job in jobs:
            job.join()
    return (last - at) / 1e9


def _worker(gate, engine, work, failures, make):
    try:
        engine.version()
        gate.wait()
        while True:
            name, body = work.get_nowait()
            make(engine, name, body)
    except queue.Empty:
        return
    except Exception as error:  # noqa: BLE001 - told to who waits
        failures.put(error)


def last_start(events, key, count, failures=None):
    started = 0

    def wanted(_host, event):
        nonlocal started
        if event["Action"] != "start" or label(event, key) is None:
            return None
        started += 1
        return "last" if started == count else "one"

    try:
        return max(event["timeNano"] for _, event in events.until(wanted, f"{count} containers start", DEADLINE_S))
    except TimeoutError:
        if failures and not failures.empty():
            raise failures.get() from None
        raise


def created_at_ns(view):
    """When the request to create it arrived, by the engine."""
    whole, _, fraction = view["Created"].rstrip("Z").partition(".")
    seconds = calendar.timegm(time.strptime(whole, "%Y-%m-%dT%H:%M:%S"))
    return seconds * 10**9 + int(fraction.ljust(9, "0")[:9])


def body(view):
    """A create request for the same container under labels that are nobody's."""
    config, host = view["Config"], view["HostConfig"]
    request = {key: config.get(key) for key in ("Image", "Cmd", "Env", "ExposedPorts", "User", "WorkingDir", "StopTimeout", "Healthcheck")}
    request["Entrypoint"] = config["Entrypoint"]
    request["Labels"] = {key.replace("dev.roadstead.", "bench.bare."): value for key, value in config["Labels"].items()}
    kept = ("NetworkMode", "PortBindings", "RestartPolicy", "Memory", "MemoryReservation", "NanoCpus", "CpuShares")
    request["HostConfig"] = {key: host.get(key) for key in (*kept, "ReadonlyRootfs", "Privileged", "LogConfig")}
    return request


# Ours is measured this often in one round over the concurrencies.
OURS_A_ROUND = 2


def compare(binary, lab, engines, count, concurrencies, samples, say, then):
    """Ours against bare at each concurrency, `samples` rounds of it; the concurrency with the best median counts.

    `then(controller)` is called while the last of ours run."""
    by_concurrency = {concurrency: [] for concurrency in concurrencies}
    ours_s, first_create_ms = [], []
    stride = -(-len(concurrencies) // OURS_A_ROUND)
    for number in range(samples):
        bodies = {}
        for turn, concurrency in enumerate(concurrencies):
            if turn % stride == 0:
                last = number == samples - 1 and turn + stride >= len(concurrencies)
                seconds, first, bodies = ours(binary, lab, engines, count, then if last else None)
                settle(engines)
                ours_s.append(seconds)
                first_create_ms.append(first)
                say(f"  {count} containers: ours {seconds:.2f} s")
            by_concurrency[concurrency].append(bare(bodies, concurrency))
            settle(engines)
            say(f"  {count} containers: bare, {concurrency} at once a host: {by_concurrency[concurrency][-1]:.2f} s")
    return {
        "ours_s": ours_s,
        "bare_s_by_concurrency": by_concurrency,
        "best_concurrency": min(concurrencies, key=lambda concurrency: statistics.median(by_concurrency[concurrency])),
        "first_create_ms": first_create_ms,
    }
