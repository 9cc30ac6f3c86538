"""Logs of runs, line by line."""

import json


def run(folder, *lines):
    (folder / "config.yaml").write_text("{}")
    with open(folder / "metrics.jsonl", "w") as file:
        for line in lines:
            file.write(line if isinstance(line, str) else json.dumps(line) + "\n")
    return folder


def start(update, processes):
    return {
        "tag": "start",
        "update": update,
        "processes": processes,
        "threads": 1,
        "cpu": True,
        "changes": {"a.b": processes},
    }


def logged(update, value):
    return {"tag": "train_inner", "update": update, "grad_hash": value}
