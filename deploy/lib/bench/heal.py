"""`docker kill` → another container runs: by the controller, and by a script that does nothing else."""

import subprocess
import sys
import time
from os import path

from burst import BARE, OURS, created_at_ns
from controller import until
from engine import Events, label

DEADLINE_S = 30
# Longer than a task must have been healthy for its end not to count as a failed start.
SETTLED_S = 12.5


def ours(controller, engines, samples, killed):
    """For each death the milliseconds to the replacement's create and to its start; `killed` holds ids used up."""
    taken = []
    with Events(engines) as events:
        for _ in range(samples):
            engine, victim = _next_victim(engines, killed)
            engine.kill(victim)
            taken.append(_replacement(engines, events, OURS, victim))
            # Until the dead one is cleared away and the new one is healthy.
            time.sleep(2)
            controller.wait_steady()
    return taken


def _next_victim(engines, killed):
    """A container that ran from the beginning, on another host each time."""
    engine = engines[len(killed) % len(engines)]
    names = {c["Names"][0]: c["Id"] for c in engine.list(OURS) if c["State"] == "running"}
    oldest = sorted((engine.inspect(i)["State"]["StartedAt"], i) for i in names.values())
    victim = next(i for _, i in oldest if i not in killed)
    killed.append(victim)
    return engine, victim


def _replacement(engines, events, key, victim):
    died = None

    def wanted(_host, event):
        nonlocal died
        if event["Action"] == "die" and event["Actor"]["ID"] == victim:
            died = event["timeNano"]
            return None
        return "last" if died and event["Action"] == "start" and label(event, key) is not None else None

    [(host, start)] = events.until(wanted, "a replacement starts", DEADLINE_S)
    engine = next(engine for engine in engines if engine.host == host)
    return {
        "create": (created_at_ns(engine.inspect(start["Actor"]["ID"])) - died) / 1e6,
        "start": (start["timeNano"] - died) / 1e6,
    }


def bare(bodies, samples):
    """The same by one script per host, `replace.py`, that follows its engine's socket."""
    taken = []
    scripts = []
    engines = list(bodies)
    try:
        current = {}
        for engine in engines:
            body = bodies[engine][0]
            body["HostConfig"]["PortBindings"] = _other_ports(body["HostConfig"]["PortBindings"])
            current[engine] = engine.create(f"bench-bare-{time.time_ns()}", body)
            engine.start(current[engine])
            scripts.append(_script(engine, current[engine]))
        time.sleep(1)
        with Events(engines) as events:
            for sample in range(samples):
                engine = engines[sample % len(engines)]
                victim = current[engine]
                engine.kill(victim)
                taken.append(_replacement(engines, events, BARE, victim))
                current[engine] = next(c["Id"] for c in engine.list(BARE) if c["State"] == "running")
                time.sleep(1)
                # As the controller does, but outside of the measured time.
                engine.remove(victim)
                time.sleep(1)
    finally:
        for script in scripts:
            script.terminate()
            script.wait()
        for engine in engines:
            for container in engine.list(BARE):
                engine.remove(container["Id"])
    return taken


def _script(engine, container):
    program = path.join(path.dirname(path.abspath(__file__)), "replace.py")
    script = subprocess.Popen([sys.executable, "-B", program, engine.path, container], stdout=subprocess.PIPE, text=True)
    if script.stdout.readline() != "ready\n":
        raise RuntimeError("replace.py did not start")
    return script


def _other_ports(bindings):
    """Far from those of the running containers."""
    return {port: [{"HostPort": "60999"}] for port in bindings or {}}


def alternate(controller, engines, bodies, blocks, samples_a_block):
    """Blocks of ours and bare in turn; the controller is away while the script works. (ours, bare), as from `ours`."""
    ours_ms, bare_ms, killed = [], [], []
    for block in range(blocks):
        if block:
            controller.launch()
        controller.wait_steady()
        time.sleep(SETTLED_S if not block else 1)
        ours_ms += ours(controller, engines, samples_a_block, killed)
        controller.stop()
        bare_ms += bare(bodies, samples_a_block)
    return ours_ms, bare_ms
