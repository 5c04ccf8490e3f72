"""Load balancers: requests through ours beside the same HAProxy with a configuration by hand, and how soon a swap is everywhere."""

import os
import re
import subprocess
import threading
import time
import urllib.request
from datetime import datetime

from burst import OURS
from controller import Controller, until
from engine import remove_all

IMAGE_PREFIX = "roadstead-node:"
OURS_PORT, HAND_PORT = 8088, 8099
HAND = "roadstead-bench-haproxy"

# Answers at once, so that what is measured is the load balancer.
ORIGIN = """
global
  nbthread 1
defaults
  mode http
  timeout client 60s
  timeout server 60s
  timeout connect 3s
frontend f
  bind :80
  http-request return status 200 content-type text/plain string ok
"""

BY_HAND = """
global
  maxconn 5000
defaults
  mode http
  timeout connect 3s
  timeout client 60s
  timeout server 60s
  option forwardfor
frontend front
  bind :{port}
  default_backend web
backend web
  balance roundrobin
  http-reuse safe
{servers}
"""


def haproxy(configuration):
    """What runs HAProxy with it in a shell of the node image."""
    script = f"cat >/tmp/haproxy.cfg <<'END'\n{configuration}END\nexec haproxy -f /tmp/haproxy.cfg"
    return script


def groups(names, ports):
    documents = [
        f"""apiVersion: roadstead/v1
kind: TargetGroup
metadata: {{ name: {name} }}
spec: {{ port: 80, healthCheck: {{ path: {path}, interval: 1s, timeout: 1s }}, deregistrationDelay: 5s }}
"""
        for name, path in names
    ]
    listeners = "".join(
        f"    - {{ name: {name}, port: {port}, defaultAction: {{ forward: {group} }} }}\n" for name, port, group in ports
    )
    documents.append(
        f"""apiVersion: roadstead/v1
kind: LoadBalancer
metadata: {{ name: front }}
spec:
  listeners:
{listeners}"""
    )
    return "---\n".join(documents)


def origins(image):
    return f"""apiVersion: roadstead/v1
kind: Service
metadata: {{ name: origin }}
spec:
  desiredCount: 2
  minimumHealthySeconds: 1
  loadBalancers: [{{ targetGroup: web }}]
  taskDefinition:
    containerDefinitions:
      - {{ name: origin, image: '{image}', entryPoint: ["/bin/sh", "-c"], command: ["{_quoted(haproxy(ORIGIN))}"], memory: 128, stopTimeout: 2, portMappings: [{{ containerPort: 80 }}] }}
"""


def _quoted(text):
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _healthy(controller, group, count):
    for one in controller.items("targetgroups"):
        if one["name"] == group:
            return one["healthyTargetsCount"] == count and one["targets"]
    return None


def _answers(url):
    try:
        return urllib.request.urlopen(url, timeout=2).status == 200
    except OSError:
        return False


def _wrk(url, seconds):
    """Requests a second, and the p99 in ms."""
    said = subprocess.run(
        ["wrk", "-t1", "-c16", f"-d{seconds}s", "--latency", url], capture_output=True, text=True, timeout=seconds + 30, check=True
    ).stdout
    if "Non-2xx" in said or "Socket errors" in said:
        raise RuntimeError(f"requests failed: {said}")
    value, unit = re.search(r"99%\s+([\d.]+)(us|ms|s)", said).groups()
    return float(re.search(r"Requests/sec:\s+([\d.]+)", said).group(1)), float(value) * {"us": 1e-3, "ms": 1, "s": 1e3}[unit]


def throughput(binary, lab, engines, rounds, seconds, say):
    """Seconds of work for 10,000 requests and p99s in ms: ours, and by hand, in turns, on one host; and the fleet's key."""
    ours, hand = ([], []), ([], [])
    with Controller(binary, lab.manifests) as controller:
        controller.write("traffic.yaml", groups([("web", "/")], [("http", OURS_PORT, "web")]))
        until("every host runs its load balancer", 120, lambda: _ready(controller))
        images = [image for one in engines[0].call("GET", "/images/json") for image in one.get("RepoTags") or []]
        image = next(image for image in images if image.startswith(IMAGE_PREFIX))
        controller.write("origin.yaml", origins(image))
        targets = until("both origins are healthy", 120, lambda: _healthy(controller, "web", 2))
        servers = "\n".join(f"  server s{at} {it['address']}:{it['port']} check" for at, it in enumerate(targets))
        configuration = BY_HAND.format(port=HAND_PORT, servers=servers)
        body = {"Image": image, "Entrypoint": ["/bin/sh", "-c"], "Cmd": [haproxy(configuration)], "HostConfig": {"NetworkMode": "host"}}
        container = engines[0].create(HAND, body)
        try:
            engines[0].start(container)
            host = next(host["address"] for host in controller.items("hosts") if host["name"] == engines[0].host)
            urls = {OURS_PORT: ours, HAND_PORT: hand}
            for port in urls:
                until(f"port {port} answers", 30, lambda port=port: _answers(f"http://{host}:{port}/"))
            for number in range(rounds + 1):
                # Whoever is first may find the machine colder.
                for port, into in list(urls.items())[:: 1 if number % 2 else -1]:
                    rate, p99 = _wrk(f"http://{host}:{port}/", seconds)
                    # The first round only warms up.
                    if number:
                        into[0].append(1e4 / rate)
                        into[1].append(p99)
                        say(f"  port {port}: {rate:.0f} requests/s, p99 {p99:.2f} ms")
        finally:
            engines[0].remove(container)
        key = controller.key()
    remove_all(engines, [OURS])
    return ours, hand, key


def _ready(controller):
    balancers = controller.items("loadbalancers")
    return balancers and all(edge["status"] == "READY" for edge in balancers[0]["hosts"])


def _on_two(controller):
    """Labels two of the hosts; their load balancers are on these alone."""
    folder = os.path.join(controller.manifests, "hosts")
    for file in sorted(os.listdir(folder))[:2]:
        with open(os.path.join(folder, file), encoding="utf-8") as text:
            labelled = text.read().replace("labels: { ", "labels: { role: edge, ")
        controller.write(os.path.join("hosts", file), labelled)


def _service(version):
    return f"""apiVersion: roadstead/v1
kind: Service
metadata: {{ name: web }}
spec:
  desiredCount: 10
  minimumHealthySeconds: 1
  deploymentConfiguration: {{ strategy: BLUE_GREEN, bakeTime: 1s }}
  loadBalancers: [{{ targetGroup: blue, alternateTargetGroup: green, productionListenerRule: front/http }}]
  taskDefinition:
    containerDefinitions:
      - {{ name: web, image: 'roadstead/demo:1', memory: 16, stopTimeout: 2, portMappings: [{{ containerPort: 80 }}], environment: {{ DEMO_VERSION: '{version}' }} }}
"""


def swaps(binary, lab, engines, key, rounds, say):
    """Milliseconds from the decision to send all requests elsewhere until the last of two edges did, as its clients see it, and until
    all were read back to do so: 20 targets."""
    seen_ms, told_ms = [], []
    with Controller(binary, lab.manifests, key) as controller:
        _on_two(controller)
        front = groups([("blue", "/healthz"), ("green", "/healthz")], [("http", OURS_PORT, "blue")])
        controller.write("traffic.yaml", front.replace("spec:\n  listeners", "spec:\n  hosts: { role: edge }\n  listeners"))
        for number in range(rounds + 1):
            controller.write("web.yaml", _service(number))
            if number == 0:
                controller.wait_steady(180)
                edges = [host["address"] for host in controller.items("hosts") if host["labels"].get("role") == "edge"]
                continue
            turned = _turned(edges, number, 120)
            until("the deployment is there", 60, lambda: len(controller.items("deployments")) > number)
            controller.wait_steady(180)
            decided, told = _shift(controller.items("events"))
            seen_ms.append((max(turned()) - decided) * 1e3)
            told_ms.append((told - decided) * 1e3)
            say(f"  a swap: {seen_ms[-1]:.0f} ms, read back after {told_ms[-1]:.0f} ms")
    remove_all(engines, [OURS])
    return seen_ms, told_ms


def _turned(edges, version, deadline_s):
    """Asks every edge all the time; when each was first asked what it answered with this version, once all have."""
    first, end = {}, time.monotonic() + deadline_s
    wanted = f"version  {version}\n".encode()

    def ask(edge):
        while edge not in first and time.monotonic() < end:
            began = time.time()
            try:
                if wanted in urllib.request.urlopen(f"http://{edge}:{OURS_PORT}/", timeout=5).read():
                    first[edge] = began
            except OSError:
                pass
            time.sleep(0.002)

    threads = [threading.Thread(target=ask, args=(edge,)) for edge in edges]
    for thread in threads:
        thread.start()

    def wait():
        for thread in threads:
            thread.join()
        if len(first) < len(edges):
            raise TimeoutError(f"not every edge turned within {deadline_s} s")
        return first.values()

    return wait


def _shift(events):
    """When it was decided, and when all edges were known to show it: seconds since the epoch."""

    def at(reason, words):
        found = [event for event in events if event["reason"] == reason and words in event["message"]]
        return max(datetime.fromisoformat(event["at"].replace("Z", "+00:00")).timestamp() for event in found)

    return at("TrafficShifted", "100 % of the requests go to"), at("LifecycleStage", "POST_PRODUCTION_TRAFFIC_SHIFT")
