"""with_sandbox.py SANDBOX COMMAND...: runs a command beside a sandbox of its own.

The sandbox gets free ports and an empty data directory; the command finds it by GATEWAY_URL and
FAUCET_URL, and somebody to pay at LIGHTNING_ADDRESS. What the sandbox printed is shown when something failed.
"""

import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading

READY_WITHIN_S = 60
ENDED_WITHIN_S = 20


def free_ports(count):
    """Ports nobody has; all are held until all are known, so that they differ."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()


class Sandbox:
    def __init__(self, binary, data_dir):
        self.gateway, admin, mint, self.upstream, self.payee = free_ports(5)
        env = os.environ | {
            "DEMO_GATEWAY_PORT": str(self.gateway),
            "DEMO_ADMIN_PORT": str(admin),
            "DEMO_MINT_PORT": str(mint),
            "DEMO_UPSTREAM_PORT": str(self.upstream),
            "DEMO_PAYEE_PORT": str(self.payee),
            "DEMO_DATA_DIR": data_dir,
            # More than most answers have, so that only the tests about it meet the end of a slice.
            "DEMO_SLICE_OUTPUT_TOKENS": "100",
        }
        self.said = []
        self.is_ready = False
        self.ready_or_ended = threading.Event()
        self.process = subprocess.Popen(
            [binary],
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        # A pipe that nobody reads would stop the sandbox when it is full.
        self.reader = threading.Thread(target=self.read, daemon=True)
        self.reader.start()

    def read(self):
        for line in self.process.stdout:
            self.said.append(line)
            if line.strip() == "ready":
                self.is_ready = True
                self.ready_or_ended.set()
        self.ready_or_ended.set()

    def await_ready(self):
        self.ready_or_ended.wait(READY_WITHIN_S)
        return self.is_ready

    def stop(self):
        """Ctrl-C ends all of it; a sandbox that stays is a failure."""
        self.process.send_signal(signal.SIGINT)
        try:
            self.process.wait(ENDED_WITHIN_S)
            return True
        except subprocess.TimeoutExpired:
            self.process.kill()
            return False


def main(binary, *command):
    with tempfile.TemporaryDirectory() as data_dir:
        sandbox = Sandbox(binary, data_dir)
        failure = None
        try:
            if sandbox.await_ready():
                env = os.environ | {
                    "GATEWAY_URL": f"http://127.0.0.1:{sandbox.gateway}",
                    "FAUCET_URL": f"http://127.0.0.1:{sandbox.upstream}/faucet",
                    "LIGHTNING_ADDRESS": f"alice@127.0.0.1:{sandbox.payee}",
                }
                if subprocess.run(command, env=env).returncode != 0:
                    failure = "the tests failed"
            else:
                failure = "the sandbox did not get ready"
        finally:
            stopped = sandbox.stop()
        if not stopped:
            failure = failure or "the sandbox did not end on Ctrl-C"
        if failure:
            sys.stderr.write("".join(sandbox.said[-200:]))
            sys.exit(failure)


if __name__ == "__main__":
    main(*sys.argv[1:])
