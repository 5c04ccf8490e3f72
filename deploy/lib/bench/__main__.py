"""Measures the controller beside bare Engine API calls on a lab that is up. Called by deploy/bench."""

import argparse
import json
import os
import platform
import signal
import statistics
import sys
import time
from types import SimpleNamespace

import addresses
import burst
import heal
import traffic
import update
from engine import Engine, remove_all

GOAL_BURST = 1.10
GOAL_HEAL = 1.15
GOAL_UPDATE = 1.15
GOAL_ADDRESSES = 1.15
GOAL_FIRST_CREATE_MS = 100
GOAL_MENDED_S = 10
GOAL_MEMORY_MIB = 40
# As many requests: at least 0.98 of them.
GOAL_REQUESTS = 1 / 0.98
GOAL_P99 = 1.02
GOAL_SWAP_MS = 20
GOAL_TOLD_MS = 200
GOAL_CPU_PERCENT = 0.5


def say(text):
    print(text, file=sys.stderr, flush=True)


def main():
    parser = argparse.ArgumentParser(prog="bench")
    parser.add_argument("--binary", required=True)
    parser.add_argument("--lab", required=True, help="the lab's folder")
    parser.add_argument("--only", choices=["start30", "start60", "heal", "update30", "network", "traffic"], help="measure this part alone")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--json", help="write the JSON here instead of to stdout")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, _ended)
    signal.signal(signal.SIGALRM, _out_of_time)
    signal.alarm(360 if options.quick else 1800)

    lab = SimpleNamespace(manifests=os.path.join(options.lab, "manifests"))
    engines = _engines(options.lab)
    machine = _machine(engines)
    figures = []
    try:
        _measure(options, lab, engines, figures)
    finally:
        signal.alarm(0)
        # Also what was measured before something went wrong.
        machine["loadAverageAfter"] = round(os.getloadavg()[0], 2)
        _print(options, machine, figures)
        remove_all(engines, [burst.OURS, burst.BARE])


def _ended(*_):
    sys.exit("bench: ended")


def _out_of_time(*_):
    sys.exit("bench: it takes too long on this machine, and was given up")


def _engines(lab):
    engines = []
    for host in sorted(os.listdir(os.path.join(lab, "hosts"))):
        with open(os.path.join(lab, "hosts", host, "init.pid"), encoding="ascii") as pid:
            engines.append(Engine(host, f"/proc/{pid.read().strip()}/root/run/docker.sock"))
    return engines


def _machine(engines):
    def field(path, key):
        with open(path, encoding="utf-8") as lines:
            return next((line.split(":", 1)[1].strip() for line in lines if line.startswith(key)), "unknown")

    return {
        "cores": os.cpu_count(),
        "processor": field("/proc/cpuinfo", "model name"),
        "memoryMib": int(field("/proc/meminfo", "MemTotal").split()[0]) // 1024,
        "kernel": platform.release(),
        "docker": engines[0].version(),
        "hosts": len(engines),
        "loadAverageBefore": round(os.getloadavg()[0], 2),
        "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }


def _measure(options, lab, engines, figures):
    quick = options.quick
    first_create_ms = []
    remove_all(engines, [burst.OURS, burst.BARE])

    def compare(count, concurrencies, samples, then=None):
        say(f"starting {count} containers …")
        found = burst.compare(options.binary, lab, engines, count, concurrencies, samples, say, then)
        first_create_ms.extend(found["first_create_ms"])
        by_concurrency, best = found["bare_s_by_concurrency"], found["best_concurrency"]
        figure = _ratio(f"start {count} containers", "s", found["ours_s"], by_concurrency[best], GOAL_BURST)
        figure["bareByConcurrency"] = {key: _rounded(samples) for key, samples in by_concurrency.items()}
        figures.append(figure | {"bestConcurrencyPerHost": best})

    def healing(controller):
        blocks, samples = (2, 4) if quick else (3, 5)
        say(f"healing, {blocks * samples} times …")
        bodies = {engine: [burst.body(engine.inspect(engine.list(burst.OURS)[0]["Id"]))] for engine in engines}
        ours, bare = heal.alternate(controller, engines, bodies, blocks, samples)
        to_start, to_create = ([[sample[end] for sample in who] for who in (ours, bare)] for end in ("start", "create"))
        figure = _ratio("killed to replacement running", "ms", *to_start, GOAL_HEAL)
        # The part that is the controller's or the script's own; the rest is the engine's.
        figure["oursToCreateSamples"], figure["bareToCreateSamples"] = map(_rounded, to_create)
        figures.append(figure)

    def at_rest(controller):
        seconds = 20 if quick else 60
        say(f"at rest with 60 tasks, {seconds} s …")
        controller.wait_steady()
        time.sleep(5 if quick else 15)
        cpu, began = controller.cpu_seconds(), time.monotonic()
        time.sleep(seconds)
        share = 100 * (controller.cpu_seconds() - cpu) / (time.monotonic() - began)
        figures.append(_absolute("memory at rest with 60 tasks", "MiB", [controller.memory_mib()], GOAL_MEMORY_MIB))
        figures.append(_absolute("processor at rest with 60 tasks", "% of a core", [share], GOAL_CPU_PERCENT))

    def rolling_update():
        say("updating 30 containers …")
        ours_s, by_concurrency, best = update.compare(
            options.binary, lab, engines, 30, [2, 4], 1 if quick else 3, say
        )
        figure = _ratio("rolling update of 30 containers", "s", ours_s, by_concurrency[best], GOAL_UPDATE)
        figure["bareByConcurrency"] = {key: _rounded(samples) for key, samples in by_concurrency.items()}
        figures.append(figure | {"bestConcurrencyPerHost": best})

    def network():
        say("starting 30 tasks with addresses of their own …")
        ours_s, by_concurrency, best, key = addresses.compare(
            options.binary, lab, engines, 30, [2, 4] if quick else [2, 3, 4, 6], 1 if quick else 3, say
        )
        figure = _ratio("start 30 tasks with addresses", "s", ours_s, by_concurrency[best], GOAL_ADDRESSES)
        figure["bareByConcurrency"] = {key: _rounded(samples) for key, samples in by_concurrency.items()}
        figures.append(figure | {"bestConcurrencyPerHost": best})
        say("sending from task to task …")
        ruled, free, mended = addresses.throughput(options.binary, lab, engines, key, 2 if quick else 5, say)
        # The more the better: what it takes without rules over what it takes with them.
        figures.append(_ratio("a Gbit from task to task, with rules and without", "s", *([1 / it for it in them] for them in (ruled, free)), GOAL_ADDRESSES))
        slowest = _absolute("flushed rules to mended, the slowest", "s", [max(mended)], GOAL_MENDED_S)
        figures.append(slowest | {"oursSamples": _rounded(mended)})

    def balancing():
        say("requests through a load balancer …")
        ours, hand, key = traffic.throughput(options.binary, lab, engines, 3 if quick else 9, 3 if quick else 5, say)
        figures.append(_ratio("10,000 requests through a load balancer", "s", ours[0], hand[0], GOAL_REQUESTS))
        figures.append(_ratio("p99 of a request through it", "ms", ours[1], hand[1], GOAL_P99))
        say("swapping 10 tasks for 10 others …")
        seen_ms, told_ms = traffic.swaps(options.binary, lab, engines, key, 3 if quick else 7, say)
        figures.append(_absolute("a swap decided to the last of 2 edges", "ms", seen_ms, GOAL_SWAP_MS))
        figures.append(_absolute("a swap decided to read back on 2 edges", "ms", told_ms, GOAL_TOLD_MS))

    concurrencies, samples = ([2, 4], 1) if quick else ([1, 2, 3, 4, 6, 8], 3)
    if options.only == "heal":
        burst.ours(options.binary, lab, engines, 30, healing)
        return
    if options.only in (None, "traffic"):
        balancing()
    if options.only == "traffic":
        return
    if options.only in (None, "network"):
        network()
    if options.only == "network":
        return
    if options.only in (None, "update30"):
        rolling_update()
    if options.only == "update30":
        return
    if options.only != "start60":
        compare(30, concurrencies, samples, None if options.only else healing)
    if options.only != "start30":
        compare(60, [2] if quick else concurrencies, samples, None if options.only else at_rest)
    figures.append(
        _absolute("manifest to first create, after the quiet period", "ms", first_create_ms, GOAL_FIRST_CREATE_MS)
    )


def _rounded(samples):
    return [round(sample, 3) for sample in samples]


def _ratio(name, unit, ours, bare, goal):
    ratio = statistics.median(ours) / statistics.median(bare)
    return {
        "name": name,
        "unit": unit,
        "ours": round(statistics.median(ours), 3),
        "bare": round(statistics.median(bare), 3),
        "ratio": round(ratio, 3),
        "goal": goal,
        "pass": ratio <= goal,
        "oursSamples": _rounded(ours),
        "bareSamples": _rounded(bare),
    }


def _absolute(name, unit, samples, goal):
    median = statistics.median(samples)
    figure = {"name": name, "unit": unit, "ours": round(median, 3), "goal": goal, "pass": median <= goal}
    return figure | {"oursSamples": _rounded(samples)}


def _print(options, machine, figures):
    _print_table(machine, figures)
    result = json.dumps({"machine": machine, "quick": options.quick, "figures": figures}, indent=2)
    if options.json:
        with open(options.json, "w", encoding="utf-8") as out:
            out.write(result + "\n")
    else:
        print(result)


def _print_table(machine, figures):
    print(
        f"{machine['cores']} cores ({machine['processor']}), {machine['memoryMib']} MiB, Linux {machine['kernel']},"
        f" Docker {machine['docker']}, {machine['hosts']} hosts on it;"
        f" load {machine['loadAverageBefore']} before, {machine['loadAverageAfter']} after"
    )
    print(f"{'':<52}{'ours':>10}{'bare':>10}  {'':<12}{'ratio':>6}{'goal':>9}")
    for figure in figures:
        bare = f"{figure['bare']:.2f}" if "bare" in figure else ""
        ratio = f"{figure['ratio']:.2f}" if "ratio" in figure else ""
        verdict = "PASS" if figure["pass"] else "MISS"
        print(
            f"{figure['name']:<52}{figure['ours']:>10.2f}{bare:>10}  {figure['unit']:<12}{ratio:>6}"
            f"{'≤ ' + format(figure['goal'], 'g'):>9}  {verdict}"
        )
        for concurrency, samples in figure.get("bareByConcurrency", {}).items():
            print(f"    bare, {concurrency} at once a host: {statistics.median(samples):.2f} of {samples}")


if __name__ == "__main__":
    main()
