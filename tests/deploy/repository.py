"""Where things are, and how a tool is asked about them."""

import json
import os
import subprocess
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"
NUTGATE = os.environ["NUTGATE"]


def read_yaml(path):
    with open(DEPLOY / path) as file:
        return yaml.safe_load(file)


def read_every_yaml(path):
    with open(DEPLOY / path) as file:
        return list(yaml.safe_load_all(file))


def read_json(path):
    return json.loads((DEPLOY / path).read_text())


def accepted(*command, cwd=DEPLOY, env=None):
    """Runs a tool that is expected to find nothing; answers with what it said."""
    run = subprocess.run(
        [str(word) for word in command],
        cwd=cwd,
        env=os.environ | (env or {}),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert run.returncode == 0, f"{command}:\n{run.stdout}"
    return run.stdout


def seconds(duration):
    """Of `330s`, `5m` or `16m`, as compose, HAProxy and nutgate write them."""
    return int(duration[:-1]) * {"s": 1, "m": 60, "h": 3600}[duration[-1]]


def make_secrets(directory, *addresses):
    key = {"UPSTREAM_API_KEY": "sk-sandbox-upstream"}
    accepted(DEPLOY / "make-secrets", directory, *addresses, env=key)
