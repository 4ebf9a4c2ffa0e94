#!/usr/bin/env python3
"""Turns recordings of the IPVS control plane (format ctl-1: README.md) into the files of this folder.

    convert.py FOLDER    writes NAME.jsonl.gz here for each FOLDER/NAME.json

The first line of a file is the recording's head, each further line one step. Kept: what was asked and answered, what the
program was given and printed, and what the director met meanwhile. keepalived's conversation, recorded as a whole, is
laid between the other steps by its times.
"""
import gzip, json, pathlib, sys

HERE = pathlib.Path(__file__).parent
KEPT = ("argv", "stdin", "uid", "raw", "opts", "note", "port", "from", "packet", "ip", "read", "text", "env",
        "unordered", "rc", "stdout", "stderr", "t_ms")


def messages(step):
    """`>HEX` was asked, `<HEX` answered; keepalived's have the process and descriptor before it."""
    return [(">" if m["dir"] == "to-kernel" else "<") + m["hex"] for m in step.get("messages", []) if "hex" in m]


def short(step):
    kept = {key: step[key] for key in KEPT if step.get(key) not in (None, "", [])}
    if messages(step):
        kept["messages"] = messages(step)
    return kept


def keepalived(steps):
    """One pseudo step for each request with its answers, with the time it was asked at."""
    found = []
    for step in steps:
        if "bgout" not in step:
            continue
        for message in step.get("messages", []):
            start = message["dir"] == "to-kernel" or not found
            if start:
                found.append({"keepalived": True, "t_ms": message["t"] * 1000, "messages": []})
            found[-1]["messages"] += messages({"messages": [message]})
    return found


def convert(path):
    recording = json.loads(path.read_text())
    steps = [step for step in recording["steps"]
             if any(key in step for key in ("argv", "raw", "from", "ip", "read", "sleep_ms"))]
    kept = [short(step) for step in steps] + keepalived(recording["steps"])
    kept.sort(key=lambda step: step["t_ms"])  # stable
    head = {key: recording[key] for key in ("name", "topic", "about", "kernel", "hz", "family_id", "net") if key in recording}
    lines = [json.dumps(line, separators=(",", ":"), ensure_ascii=False) for line in [head, *kept]]
    with open(HERE / f"{path.stem}.jsonl.gz", "wb") as file:
        # No name and no time inside: the same recording gives the same bytes.
        with gzip.GzipFile("", "wb", 9, file, 0) as out:
            out.write(("\n".join(lines) + "\n").encode())


for recording in sorted(pathlib.Path(sys.argv[1]).glob("*.json")):
    convert(recording)
