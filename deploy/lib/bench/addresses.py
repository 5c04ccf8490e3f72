"""Tasks with addresses of their own, beside the same sandboxes and containers made by hand; and what passes between them."""

import random
import statistics
import subprocess
import time

from burst import OURS, bare, body, last_start, settle
from controller import Controller, until
from engine import Events

SUBNET = """apiVersion: roadstead/v1
kind: Subnet
metadata: { name: bench }
spec: { cidr: 10.64.0.0/20, hostPrefix: 24 }
"""
# So long one sender sends.
SEND_S = 4

RECEIVE = """
import socket, sys
listener = socket.create_server((sys.argv[1], 9))
listener.settimeout(20)
print("ready", flush=True)
connection, _ = listener.accept()
room = memoryview(bytearray(1 << 20))
while connection.recv_into(room): pass
"""
SEND = """
import socket, sys, time
connection = socket.create_connection((sys.argv[1], 9), 10)
piece, sent = bytes(1 << 20), 0
began = time.monotonic()
while time.monotonic() - began < float(sys.argv[2]):
    connection.sendall(piece)
    sent += len(piece)
print(sent * 8 / (time.monotonic() - began) / 1e9)
"""


def service(count):
    """They run so long as nobody removes them, and reach each other on every port."""
    return f"""apiVersion: roadstead/v1
kind: Service
metadata: {{ name: web }}
spec:
  desiredCount: {count}
  minimumHealthySeconds: 1
  taskDefinition:
    networkMode: awsvpc
    containerDefinitions:
      - {{ name: web, image: 'roadstead/demo:1', memory: 16, stopTimeout: 2, portMappings: [{{ containerPort: 80 }}] }}
"""


def compare(binary, lab, engines, count, concurrencies, samples, say):
    """As burst.compare: the hosts have their part of the task network before the clock starts."""
    ours_s, by_concurrency, key = [], {concurrency: [] for concurrency in concurrencies}, None
    for number in range(samples + 1):
        seconds, tasks, key = _ours(binary, lab, engines, count, key)
        settle(engines)
        if number == 0:
            # The node image is sent, and networks are made.
            continue
        ours_s.append(seconds)
        say(f"  {count} tasks: ours {seconds:.2f} s")
        for concurrency in concurrencies:
            by_concurrency[concurrency].append(bare(tasks, concurrency, _make, 2))
            settle(engines)
            say(f"  {count} tasks: bare, {concurrency} at once a host: {by_concurrency[concurrency][-1]:.2f} s")
    best = min(concurrencies, key=lambda concurrency: statistics.median(by_concurrency[concurrency]))
    return ours_s, by_concurrency, best, key


def _has_network(controller):
    hosts = controller.items("hosts")
    return len(hosts) == controller.hosts and all((host.get("network") or {}).get("status") == "READY" for host in hosts)


def _ours(binary, lab, engines, count, key):
    with Controller(binary, lab.manifests, key) as controller, Events(engines) as events:
        controller.write("subnet.yaml", SUBNET)
        until("every host has its part of the task network", 120, lambda: _has_network(controller))
        at = controller.write("web.yaml", service(count))
        last = last_start(events, OURS, 2 * count)
        key = controller.key()
        tasks = {engine: _pairs([engine.inspect(c["Id"]) for c in engine.list(OURS)]) for engine in engines}
    if sum(map(len, tasks.values())) != count:
        raise RuntimeError(f"not {count} tasks: {tasks}")
    return (last - at) / 1e9, tasks, key


def _pairs(views):
    """Bodies to make the sandboxes again, and what shares each one's network."""
    sandboxes = {view["Id"]: view for view in views if not view["HostConfig"]["NetworkMode"].startswith("container:")}
    pairs = []
    for view in views:
        mode = view["HostConfig"]["NetworkMode"]
        if not mode.startswith("container:"):
            continue
        sandbox = sandboxes[mode.removeprefix("container:")]
        (network, its), = sandbox["NetworkSettings"]["Networks"].items()
        own, other = body(sandbox), body(view)
        own["MacAddress"] = its["MacAddress"]
        own["NetworkingConfig"] = {"EndpointsConfig": {network: {"IPAMConfig": {"IPv4Address": its["IPAddress"]}}}}
        # What another's network forbids.
        other.pop("ExposedPorts", None)
        other["HostConfig"].pop("PortBindings", None)
        pairs.append((own, other))
    return pairs


def _make(engine, name, pair):
    sandbox, main = pair
    holder = engine.create(f"{name}-sandbox", sandbox)
    engine.start(holder)
    main["HostConfig"]["NetworkMode"] = f"container:{holder}"
    engine.start(engine.create(name, main))


def throughput(binary, lab, engines, key, samples, say):
    """Gbit/s from a task on one host to one on another, under the rules, and with the rules removed; and in how many seconds
    the controller put rules back that somebody flushed.
    """
    with Controller(binary, lab.manifests, key) as controller:
        controller.write("subnet.yaml", SUBNET)
        controller.write("web.yaml", service(len(engines)))
        controller.wait_steady(120)
        mended = [_mended(engine) for _ in range(samples) for engine in engines]
        say(f"  flushed rules stood again after {', '.join(f'{seconds:.1f}' for seconds in mended)} s")
    # Nobody puts back what is removed now.
    ends = [_end(engine) for engine in engines[:2]]
    with_rules, without = [], []
    for _ in range(samples):
        with_rules.append(_send(*ends))
        say(f"  with rules {with_rules[-1]:.2f} Gbit/s")
    for engine in engines[:2]:
        _on(engine, ["nft", "delete", "table", "inet", "roadstead"])
        _on(engine, ["nft", "delete", "table", "bridge", "roadstead"])
    for _ in range(samples):
        without.append(_send(*ends))
        say(f"  without {without[-1]:.2f} Gbit/s")
    settle(engines)
    return with_rules, without, mended


def _mended(engine):
    """Seconds until a host's flushed rules stand as they stood."""
    stood = _rules(engine)
    if not stood:
        raise RuntimeError("a host has no rules")
    # Not at the same moment of the controller's look each time.
    time.sleep(random.uniform(0, 4))
    began = time.monotonic()
    _on(engine, ["nft", "delete", "table", "inet", "roadstead"])
    until("the rules stand again", 60, lambda: _rules(engine) == stood)
    return time.monotonic() - began


def _rules(engine):
    table = _command(engine, ["nft", "--stateless", "list", "table", "inet", "roadstead"])
    found = subprocess.run(table, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=30, check=False)
    return sorted(found.stdout.splitlines())


def _end(engine):
    """A sandbox's host, process and address."""
    views = [engine.inspect(c["Id"]) for c in engine.list(OURS)]
    view = next(view for view in views if not view["HostConfig"]["NetworkMode"].startswith("container:"))
    (_, its), = view["NetworkSettings"]["Networks"].items()
    return engine, view["State"]["Pid"], its["IPAddress"]


def _command(engine, command):
    init = engine.path.split("/")[2]
    return ["nsenter", "-t", init, "-m", "-n", "-p", "--", *command]


def _on(engine, command):
    subprocess.run(_command(engine, command), check=True, stdin=subprocess.DEVNULL, timeout=30)


def _send(source, target):
    engine, pid, address = target
    receiver = subprocess.Popen(
        _command(engine, ["nsenter", "-t", str(pid), "-n", "python3", "-c", RECEIVE, address]),
        stdout=subprocess.PIPE, stdin=subprocess.DEVNULL,
    )
    try:
        if not receiver.stdout.readline():
            raise RuntimeError("nobody receives")
        engine, pid, _ = source
        sender = _command(engine, ["nsenter", "-t", str(pid), "-n", "python3", "-c", SEND, address, str(SEND_S)])
        done = subprocess.run(sender, check=True, capture_output=True, stdin=subprocess.DEVNULL, timeout=60)
        return float(done.stdout)
    finally:
        receiver.kill()
        receiver.wait()
