"""Every file of deploy/ is accepted by the program that it is for, and they agree."""

import re
import stat
import subprocess

import pytest
import yaml

from repository import (
    DEPLOY,
    NUTGATE,
    ROOT,
    accepted,
    make_secrets,
    read_every_yaml,
    read_json,
    read_yaml,
    seconds,
)

CONFIGURATIONS = sorted([*ROOT.glob("conf/*.yaml"), *DEPLOY.glob("nutgate*.yaml")])
MANIFESTS = read_yaml("kustomization.yaml")["resources"]
# Its schema is the Prometheus operator's own.
OPERATOR_MANIFEST = "kubernetes/servicemonitor.yaml"


@pytest.mark.parametrize("path", CONFIGURATIONS, ids=lambda path: path.name)
def test_nutgate_takes_every_configuration(path, tmp_path):
    make_secrets(tmp_path / "secrets")
    env = {
        "NUTGATE_LISTEN": "127.0.0.1:8080",
        "NUTGATE_ADMIN": "127.0.0.1:9090",
        "NUTGATE_DATA": str(tmp_path / "data"),
        "NUTGATE_SECRETS": str(tmp_path / "secrets"),
    }
    assert accepted(NUTGATE, "check", "--config", path, env=env).startswith("ok: ")


def test_secrets_are_for_their_owner_and_are_made_once(tmp_path):
    secrets = tmp_path / "secrets"
    make_secrets(secrets)
    first = {path.name: path.read_bytes() for path in secrets.iterdir()}
    assert len(first["seed"]) == 64
    assert first["redis_password"] != first["postgres_password"]
    for path in [secrets, *secrets.iterdir()]:
        assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0, path.name
    make_secrets(secrets, "redis:6379", "postgres:5432")
    second = {path.name: path.read_bytes() for path in secrets.iterdir()}
    assert {name for name in first if first[name] != second[name]} == {"redis_url", "postgres_url"}
    assert second["redis_url"].endswith(b"@redis:6379\n")


def test_a_gateway_is_not_started_without_the_upstreams_key(tmp_path):
    accepted(DEPLOY / "make-secrets", tmp_path, env={"UPSTREAM_API_KEY": ""})
    command = [NUTGATE, "check", "--config", DEPLOY / "nutgate.yaml"]
    check = subprocess.run(command, env={"NUTGATE_SECRETS": tmp_path}, capture_output=True)
    assert check.returncode == 1
    assert b"upstream_api_key` is empty" in check.stderr


def test_the_compose_file_is_one_and_what_it_mounts_is_there(tmp_path):
    accepted("check-jsonschema", "--builtin-schema", "vendor.compose-spec", "compose.yaml")
    compose = read_yaml("compose.yaml")
    make_secrets(tmp_path)
    for name, secret in compose["secrets"].items():
        assert secret["file"] == f"./secrets/{name}" and (tmp_path / name).exists()
    for name, service in compose["services"].items():
        for mount in service.get("volumes", []):
            source = mount.split(":")[0]
            made_by_hand = source == "./run"
            known = source in compose["volumes"] or (DEPLOY / source).exists() or made_by_hand
            assert known, f"{name}: {mount}"
        assert set(service.get("secrets", [])) <= set(compose["secrets"])


def test_nothing_of_the_compose_file_is_published_but_on_loopback():
    services = read_yaml("compose.yaml")["services"]
    published = {name: service["ports"] for name, service in services.items() if "ports" in service}
    assert set(published) == {"haproxy", "prometheus", "grafana"}
    assert all(port.startswith("127.0.0.1:") for ports in published.values() for port in ports)


def test_the_dockerfile_is_a_good_one():
    accepted("hadolint", "Dockerfile")


def test_the_image_is_built_from_sources_and_nothing_else():
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    rules = [line for line in lines if line and not line.startswith("#")]
    assert rules[0] == "*" and "!deploy" not in rules
    assert all((ROOT / rule.lstrip("!")).exists() for rule in rules[1:])


def test_the_manifests_are_what_kubernetes_knows(tmp_path):
    listed = {*MANIFESTS, OPERATOR_MANIFEST}
    assert listed == {str(path.relative_to(DEPLOY)) for path in DEPLOY.glob("kubernetes/*.yaml")}
    whole = tmp_path / "whole.yaml"
    whole.write_text(accepted("kubectl", "kustomize", DEPLOY))
    accepted("kubernetes-validate", "--strict", "-k", "1.34", whole)
    assert read_yaml(OPERATOR_MANIFEST)["kind"] == "ServiceMonitor"


def test_the_manifests_mean_the_same_gateways():
    objects = list(yaml.safe_load_all(accepted("kubectl", "kustomize", DEPLOY)))
    (gateways,) = [each for each in objects if each["kind"] == "StatefulSet"]
    (config,) = [each for each in objects if each["kind"] == "ConfigMap"]
    assert config["data"]["nutgate.yaml"] == (DEPLOY / "nutgate.fleet.yaml").read_text()
    volumes = gateways["spec"]["template"]["spec"]["volumes"]
    assert {"name": "config", "configMap": {"name": config["metadata"]["name"]}} in volumes
    # Secrets are made by hand, and stand in no file.
    assert not [each for each in objects if each["kind"] == "Secret"]
    labels = gateways["spec"]["template"]["metadata"]["labels"]
    assert gateways["spec"]["selector"]["matchLabels"] == labels
    services = {
        each["metadata"]["name"]: each["spec"] for each in objects if each["kind"] == "Service"
    }
    assert gateways["spec"]["serviceName"] in services
    assert all(spec["selector"] == labels for spec in services.values())
    # What asks for no credential has no address of its own.
    for spec in services.values():
        admin = any(port["name"] == "admin" for port in spec["ports"])
        assert spec.get("type", "ClusterIP") == "ClusterIP"
        assert (spec.get("clusterIP") == "None") == admin
    for each in objects:
        if each["kind"] == "PodDisruptionBudget":
            assert each["spec"]["selector"]["matchLabels"] == labels
        if each["kind"] == "NetworkPolicy":
            assert each["spec"]["podSelector"]["matchLabels"] == labels
        if each["kind"] == "HorizontalPodAutoscaler":
            assert each["spec"]["scaleTargetRef"]["name"] == gateways["metadata"]["name"]


def test_whatever_stops_a_gateway_waits_for_its_streams():
    drain = seconds(read_yaml("nutgate.fleet.yaml")["listen"]["drain"])
    services = read_yaml("compose.yaml")["services"]
    for number in (1, 2, 3):
        assert seconds(services[f"gateway-{number}"]["stop_grace_period"]) > drain
    pod = read_every_yaml("kubernetes/gateways.yaml")[0]["spec"]["template"]["spec"]
    pause = pod["containers"][0]["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert pod["terminationGracePeriodSeconds"] > pause + drain
    unit = (DEPLOY / "systemd/nutgate.service").read_text()
    assert seconds(re.search(r"^TimeoutStopSec=(\S+)$", unit, re.M)[1]) > drain


def test_the_unit_is_one_and_is_confined(tmp_path):
    installed = tmp_path / "nutgate.service"
    text = (DEPLOY / "systemd/nutgate.service").read_text()
    installed.write_text(text.replace("/usr/local/bin/nutgate", NUTGATE))
    assert accepted("systemd-analyze", "verify", "--man=no", installed) == ""
    accepted("systemd-analyze", "security", "--offline=true", "--threshold=15", installed)


def test_prometheus_takes_its_configuration_and_its_rules():
    for config in ("gateways.targets.yml", "compose.targets.yml"):
        targets = [each for group in read_yaml(f"prometheus/{config}") for each in group["targets"]]
        assert len(targets) == 3
    said = accepted("promtool", "check", "config", "prometheus.yml", cwd=DEPLOY / "prometheus")
    assert "rules found" in said


def test_every_alert_fires_when_it_should_and_not_before():
    tests = ROOT / "tests/deploy/rules.test.yml"
    accepted("promtool", "test", "rules", tests)
    groups = read_yaml("prometheus/rules.yml")["groups"]
    rules = [rule for group in groups for rule in group["rules"]]
    cases = [case for test in read_yaml(tests)["tests"] for case in test["alert_rule_test"]]
    quiet = {case["alertname"] for case in cases if "exp_alerts" not in case}
    fires = {case["alertname"] for case in cases if "exp_alerts" in case}
    assert quiet == fires == {rule["alert"] for rule in rules}


def test_haproxy_takes_its_configuration(tmp_path):
    socket = {"HAPROXY_SOCKET": str(tmp_path / "admin.sock")}
    accepted("haproxy", "-c", "-f", "haproxy/haproxy.cfg", env=socket)
    every = ["-f", "haproxy/haproxy.cfg", "-f", "haproxy/as-root.cfg"]
    accepted("haproxy", "-c", *every, env=socket)


def test_haproxy_is_more_patient_than_a_gateway():
    config = (DEPLOY / "haproxy/haproxy.cfg").read_text()
    documented = (ROOT / "conf/nutgate.yaml").read_text()
    longest = seconds(re.search(r"^# +total: (\S+)$", documented, re.M)[1])
    for side in ("client", "server"):
        assert seconds(re.search(rf"^ +timeout {side} (\S+)$", config, re.M)[1]) > longest


def test_the_dashboard_asks_whichever_prometheus_is_chosen():
    dashboard = read_json("grafana/dashboards/nutgate.json")
    panels = [panel for panel in dashboard["panels"] if panel["type"] != "row"]
    assert len({panel["id"] for panel in dashboard["panels"]}) == len(dashboard["panels"])
    for panel in panels:
        assert panel["datasource"]["uid"] == "${datasource}", panel["title"]
        assert panel["targets"], panel["title"]
    (source,) = read_yaml("grafana/provisioning/datasources/prometheus.yml")["datasources"]
    assert source["type"] == "prometheus"
