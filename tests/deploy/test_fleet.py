"""A fleet as deploy/ brings it up: Redis, PostgreSQL, three gateways, HAProxy and Prometheus."""

import json
import os
import subprocess
import threading
import urllib.parse

import pytest

from fleet import MODELS, Fleet, fetch, until
from repository import DEPLOY, accepted, read_json

GATEWAYS = (1, 2, 3)


@pytest.fixture(scope="module")
def fleet():
    fleet = Fleet()
    try:
        fleet.start()
        fleet.start_prometheus()
        yield fleet
    finally:
        print(fleet.logs())
        fleet.end()


def asked(connection, key, model="demo", stream=False, payment=None, extra=()):
    """The answer to a chat completion, of which only the head is read."""
    messages = [{"role": "user", "content": "hello"}]
    body = {"model": model, "max_tokens": 50, "stream": stream, "messages": messages}
    head = {"x-cashu": payment} if payment else {"authorization": f"Bearer {key}"}
    head |= {"content-type": "application/json", **dict(extra)}
    connection.request("POST", "/v1/chat/completions", json.dumps(body), head)
    return connection.getresponse()


def served(fleet, key, stream=False):
    """Whether one request, on a connection of its own, was answered to its end."""
    answer = asked(fleet.connection(), key, stream=stream)
    text = answer.read()
    return answer.status == 200 and (not stream or text.endswith(b"data: [DONE]\n\n"))


def test_any_gateway_serves_a_key_that_any_other_has_made(fleet):
    key = fleet.key(1000)
    before = [fleet.series(each, "nutgate_reservations_ended_total") for each in GATEWAYS]
    rounds = 12
    for turn in range(rounds):
        assert served(fleet, key, stream=turn % 2 == 0)
    # The end of the last one is counted when its answer has been sent.
    ended = lambda: [  # noqa: E731
        fleet.series(each, "nutgate_reservations_ended_total") - start
        for each, start in zip(GATEWAYS, before)
    ]
    until("every request has ended", lambda: sum(ended()) == rounds)
    assert all(count > 0 for count in ended()), ended()
    assert fleet.balance(key)["total_requests"] == rounds


def test_events_pass_haproxy_while_the_rest_of_the_stream_is_to_come(fleet):
    connection = fleet.connection()
    answer = asked(connection, fleet.key(1000), model="demo-hangs-mid-stream", stream=True)
    assert answer.status == 200
    # The upstream says no more after half of it, and does not hang up.
    assert answer.readline().startswith(b"data: ")
    connection.close()


def test_a_payment_of_sixty_kilobytes_passes_haproxy(fleet):
    answer = asked(fleet.connection(), None, payment="cashuB" + "A" * 60_000)
    assert json.loads(answer.read())["error"]["code"] == "invalid_cashu_token"


def test_a_stranger_behind_haproxy_is_limited_alone_whoever_he_says_he_is(fleet):
    def attempt(source, claimed):
        connection = fleet.connection(source)
        answer = asked(connection, None, payment="cashuBAA", extra={"x-forwarded-for": claimed})
        text = answer.read()
        assert answer.status in (400, 429), text
        return answer.status

    claims = (f"198.51.{number // 250}.{number % 250}" for number in range(1000))
    until("he is refused", lambda: attempt("127.0.0.2", next(claims)) == 429)
    assert attempt("127.0.0.3", next(claims)) == 400


def test_without_a_gateway_a_client_is_told_so_and_not_to_pay_again(fleet):
    for each in GATEWAYS:
        fleet.haproxy(f"set server gateways/gateway-{each} state maint")
    try:
        for headers, retry in ({}, None), ({"x-cashu": fleet.cashu(1)}, "false"):
            status, head, text = fetch(f"{fleet.url}/v1/models", headers)
            assert (status, head["x-should-retry"], head["retry-after"]) == (503, retry, "1")
            assert json.loads(text)["error"]["type"] == "service_unavailable"
    finally:
        for each in GATEWAYS:
            fleet.haproxy(f"set server gateways/gateway-{each} state ready")
    until("it serves again", lambda: fetch(f"{fleet.url}/healthz")[0] == 200)


def test_what_haproxy_logs_has_no_path_and_no_credential(fleet):
    secret = "invoice-that-nobody-may-read"
    key = fleet.key(10)
    fetch(f"{fleet.url}/lightning/invoice/{secret}/status", {"authorization": f"Bearer {key}"})
    log = fleet.state / "haproxy.log"
    until("it is logged", lambda: " GET " in log.read_text())
    text = log.read_text()
    assert secret not in text and key not in text


def test_a_rolling_restart_drops_no_stream_and_fails_no_request(fleet):
    key = fleet.key(20_000)
    stop = threading.Event()
    outcomes = []

    def load(stream):
        while not stop.is_set():
            outcomes.append(served(fleet, key, stream))

    clients = [threading.Thread(target=load, args=(number % 2 == 0,)) for number in range(4)]
    for client in clients:
        client.start()
    pids = [(fleet.state / f"gateway-{each}.pid").read_text() for each in GATEWAYS]
    # A stream that is longer than the restart of the gateway that has it.
    long = asked(fleet.connection(), key, model="demo-paced", stream=True)
    try:
        restart = [DEPLOY / "loopback", fleet.state, "restart"]
        accepted(DEPLOY / "rolling-restart", fleet.haproxy_socket, *restart)
    finally:
        stop.set()
        for client in clients:
            client.join()
    assert long.read().endswith(b"data: [DONE]\n\n")
    assert outcomes and all(outcomes), f"{outcomes.count(False)} of {len(outcomes)} failed"
    for each, pid in zip(GATEWAYS, pids):
        assert (fleet.state / f"gateway-{each}.pid").read_text() != pid
    requests = len(outcomes) + 1
    until("all are billed, once", lambda: fleet.balance(key)["total_requests"] == requests)
    until("nothing is left reserved", lambda: fleet.balance(key)["reserved"] == 0)


def test_prometheus_sees_every_gateway_and_understands_every_alert(fleet):
    def answering():
        up = fleet.prometheus_says("query?query=" + urllib.parse.quote('up{job="nutgate"} == 1'))
        return up and len(up["result"]) == len(GATEWAYS)

    until("Prometheus reads all of them", answering)

    def evaluated():
        groups = (fleet.prometheus_says("rules") or {"groups": []})["groups"]
        rules = [rule for group in groups for rule in group["rules"]]
        return rules and all(rule["health"] != "unknown" for rule in rules) and rules

    for rule in until("every rule is evaluated", evaluated):
        assert rule["health"] == "ok", rule
        assert rule["state"] != "firing", rule


def test_every_panel_of_the_dashboard_shows_something(fleet):
    # Something to show: settled, released, refused, and failures of the upstream.
    key = fleet.key(100)
    panels = read_json("grafana/dashboards/nutgate.json")["panels"]
    queries = [target["expr"] for panel in panels for target in panel.get("targets", [])]
    assert len(queries) > 20

    def shown(query):
        for model in MODELS[0], MODELS[3]:
            asked(fleet.connection(), key, model=model).read()
        fetch(f"{fleet.url}/v1/balance/info")
        query = urllib.parse.quote(query.replace("$__rate_interval", "1m"))
        answer = fleet.prometheus_says(f"query?query={query}")
        return answer and answer["result"]

    for query in queries:
        until(query, lambda: shown(query))


def test_a_second_fleet_in_the_same_place_is_refused_and_does_the_first_no_harm(fleet):
    second = subprocess.run([DEPLOY / "loopback", fleet.state], env=os.environ | fleet.env())
    assert second.returncode == 1
    assert served(fleet, fleet.key(100))


def test_the_money_is_there_after_everything_was_stopped(fleet):
    key = fleet.key(500)
    assert served(fleet, key)
    before = until("it is settled", lambda: settled(fleet.balance(key)))
    assert fleet.stop() == 0
    assert not list(fleet.state.glob("*.pid")) and not fleet.haproxy_socket.exists()
    fleet.start()
    assert fleet.balance(key) == before
    assert fleet.audit().startswith("balanced: ")


def settled(balance):
    return balance if balance["reserved"] == 0 and balance["total_requests"] == 1 else None
