"""A controller on folders of its own, and what it says."""

import json
import os
import shutil
import signal
import subprocess
import tempfile
import time


def until(what, deadline_s, holds, every_s=0.1):
    """Asks again until `holds()` is true; its value. Raises TimeoutError."""
    end = time.monotonic() + deadline_s
    while True:
        value = holds()
        if value:
            return value
        if time.monotonic() > end:
            raise TimeoutError(f"not within {deadline_s} s: {what}")
        time.sleep(every_s)


class Controller:
    """For a `with` block; what it started on the hosts stays."""

    def __init__(self, binary, host_manifests, key=None):
        """`key`: of an earlier one, whose networks on the hosts it is to take for its own."""
        self.binary = binary
        self.folder = tempfile.mkdtemp(prefix="roadstead-bench-")
        self.manifests = os.path.join(self.folder, "manifests")
        shutil.copytree(host_manifests, os.path.join(self.manifests, "hosts"))
        self.hosts = len(os.listdir(os.path.join(self.manifests, "hosts")))
        self.endpoint = "unix:" + os.path.join(self.folder, "socket")
        self.child = None
        if key:
            os.makedirs(os.path.join(self.folder, "data"), mode=0o700)
            with open(os.open(self._key_file(), os.O_WRONLY | os.O_CREAT, 0o600), "wb") as out:
                out.write(key)

    def _key_file(self):
        return os.path.join(self.folder, "data", "fleet.key")

    def key(self):
        """What the next one needs to go on with what this one made on the hosts."""
        with open(self._key_file(), "rb") as file:
            return file.read()

    def __enter__(self):
        try:
            self.launch()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    def launch(self):
        """Starts it and waits until it has looked at every host."""
        with open(os.path.join(self.folder, "log"), "ab") as log:
            self.child = subprocess.Popen(
                [self.binary, "controller", "--manifests", self.manifests, "--listen", self.endpoint]
                + ["--data", os.path.join(self.folder, "data")],
                stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=log,
            )
        until("every host is ACTIVE and was looked at", 60, self._hosts_are_ready)

    def stop(self):
        """SIGTERM: everything on the hosts runs on."""
        if self.child is None:
            return
        self.child.send_signal(signal.SIGTERM)
        try:
            self.child.wait(15)
        except subprocess.TimeoutExpired:
            self.child.kill()
            self.child.wait()
        self.child = None

    def write(self, file, text):
        """Writes a manifest whole; the time of its appearance in nanoseconds since the epoch."""
        path = os.path.join(self.manifests, file)
        with open(path + ".tmp~", "w", encoding="utf-8") as out:
            out.write(text)
        # The temporary file's own event must not start the quiet period.
        time.sleep(0.5)
        at = time.time_ns()
        os.rename(path + ".tmp~", path)
        return at

    def items(self, kind):
        """`roadstead get KIND`; nothing while the controller does not answer."""
        environment = {**os.environ, "ROADSTEAD_ENDPOINT": self.endpoint}
        done = subprocess.run(
            [self.binary, "get", kind, "-o", "json"], env=environment, stdin=subprocess.DEVNULL, capture_output=True, timeout=30
        )
        if self.child.poll() is not None:
            with open(os.path.join(self.folder, "log"), encoding="utf-8") as log:
                raise RuntimeError("the controller ended: " + "".join(log.readlines()[-5:]))
        return json.loads(done.stdout)["items"] if done.returncode == 0 else []

    def _hosts_are_ready(self):
        hosts = self.items("hosts")
        return len(hosts) == self.hosts and all(host["status"] == "ACTIVE" and host["connected"] for host in hosts)

    def wait_steady(self, deadline_s=60):
        def steady():
            services = self.items("services")
            return services and all(
                service["runningCount"] == service["desiredCount"]
                and service["pendingCount"] == 0
                and service["deployments"][0]["rolloutState"] == "COMPLETED"
                for service in services
            )

        until("every service is steady", deadline_s, steady, 0.25)

    def cpu_seconds(self):
        with open(f"/proc/{self.child.pid}/stat", encoding="ascii") as stat:
            fields = stat.read().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def memory_mib(self):
        with open(f"/proc/{self.child.pid}/status", encoding="ascii") as status:
            fields = dict(line.split(":", 1) for line in status)
        return int(fields["VmRSS"].split()[0]) / 1024


def service(count, minimum_healthy_s=1, version=1):
    environment = f", environment: {{ VERSION: '{version}' }}" if version > 1 else ""
    return f"""apiVersion: roadstead/v1
kind: Service
metadata: {{ name: web }}
spec:
  desiredCount: {count}
  minimumHealthySeconds: {minimum_healthy_s}
  taskDefinition:
    containerDefinitions:
      - {{ name: web, image: 'roadstead/demo:1', memory: 16, stopTimeout: 2, portMappings: [{{ containerPort: 80 }}]{environment} }}
"""
