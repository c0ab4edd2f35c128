"""The manifest: fields that exist, parts that fit each other, the image and the gateway."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from mcpconn import Manager
from mcpconn.gateway.config import parse_settings
from mcpconn.gateway.http.draining import IDLE
from mcpconn.gateway.outside import PLAIN
from mcpconn.gateway.serve import GRACE
from tests.deploy.reading import DEPLOY, documents
from tests.deploy.test_dockerfile import last

MANIFEST = DEPLOY / "kubernetes" / "mcpconn.yaml"
DOCUMENTS = {each["kind"]: each for each in documents(MANIFEST)}
META = {"name": str, "labels": dict}
PROBE = {"httpGet": {"path": str, "port": str}, "periodSeconds": int, "timeoutSeconds": int, "failureThreshold": int}
CONTAINER = {
    "name": str,
    "image": str,
    "args": [str],
    "ports": [{"name": str, "containerPort": int}],
    "livenessProbe": PROBE,
    "readinessProbe": PROBE,
    "startupProbe": PROBE,
    "lifecycle": {"preStop": {"exec": {"command": [str]}}},
    "resources": {"requests": {"cpu": str, "memory": str}, "limits": {"memory": str}},
    "securityContext": {
        "allowPrivilegeEscalation": bool,
        "readOnlyRootFilesystem": bool,
        "capabilities": {"drop": [str]},
    },
    "volumeMounts": [{"name": str, "mountPath": str, "readOnly": bool}],
}
POD = {
    "automountServiceAccountToken": bool,
    "terminationGracePeriodSeconds": int,
    "securityContext": {
        "runAsNonRoot": bool,
        "runAsUser": int,
        "runAsGroup": int,
        "fsGroup": int,
        "seccompProfile": {"type": str},
    },
    "containers": [CONTAINER],
    "volumes": [
        {
            "name": str,
            "configMap": {"name": str},
            "secret": {"secretName": str, "defaultMode": int},
            "persistentVolumeClaim": {"claimName": str},
            "emptyDir": dict,
        }
    ],
}
FIELDS: dict[str, Any] = {
    "ConfigMap": {"data": dict},
    "PersistentVolumeClaim": {"spec": {"accessModes": [str], "resources": {"requests": {"storage": str}}}},
    "Deployment": {
        "spec": {
            "replicas": int,
            "strategy": {"type": str},
            "selector": {"matchLabels": dict},
            "template": {"metadata": {"labels": dict}, "spec": POD},
        }
    },
    "Service": {"spec": {"selector": dict, "ports": [{"name": str, "port": int, "targetPort": str}]}},
}
"""The fields of the API that the manifest may use, and their types."""
VERSIONS = {"ConfigMap": "v1", "PersistentVolumeClaim": "v1", "Service": "v1", "Deployment": "apps/v1"}


def misfits(found: Any, wanted: Any, where: str) -> list[str]:
    """What is not as the API has it."""
    if isinstance(wanted, type):
        return [] if type(found) is wanted else [f"{where} is no {wanted.__name__}"]
    if isinstance(wanted, list):
        if not isinstance(found, list):
            return [f"{where} is no list"]
        return [each for i, one in enumerate(found) for each in misfits(one, wanted[0], f"{where}[{i}]")]
    if not isinstance(found, dict):
        return [f"{where} is no mapping"]
    unknown = [f"{where} has no field {key}" for key in found if key not in wanted]
    return unknown + [
        each for key in found.keys() & wanted for each in misfits(found[key], wanted[key], f"{where}.{key}")
    ]


POD_SPEC = DOCUMENTS["Deployment"]["spec"]["template"]["spec"]
(GATEWAY,) = POD_SPEC["containers"]
MOUNTS = {each["name"]: each["mountPath"] for each in GATEWAY["volumeMounts"]}
VOLUMES = {each["name"]: each for each in POD_SPEC["volumes"]}


@pytest.mark.parametrize("kind", DOCUMENTS)
def test_every_field_is_one_of_the_api(kind):
    document = DOCUMENTS[kind]
    known = {"apiVersion": str, "kind": str, "metadata": META, **FIELDS[kind]}
    assert misfits(document, known, kind) == []
    assert document["apiVersion"] == VERSIONS[kind]
    assert len(documents(MANIFEST)) == len(DOCUMENTS)


def test_a_misspelt_field_and_a_wrong_type_are_found():
    assert misfits({"specs": {}}, {"spec": {}}, "a") == ["a has no field specs"]
    assert misfits({"n": "1"}, {"n": int}, "a") == ["a.n is no int"]
    assert misfits({"n": [{"m": 1}]}, {"n": [{"m": bool}]}, "a") == ["a.n[0].m is no bool"]


def test_the_service_finds_the_pods_port():
    labels = DOCUMENTS["Deployment"]["spec"]["template"]["metadata"]["labels"]
    assert DOCUMENTS["Deployment"]["spec"]["selector"]["matchLabels"].items() <= labels.items()
    assert DOCUMENTS["Service"]["spec"]["selector"].items() <= labels.items()
    (port,) = DOCUMENTS["Service"]["spec"]["ports"]
    (own,) = GATEWAY["ports"]
    assert port["targetPort"] == own["name"]
    assert str(own["containerPort"]) == last("EXPOSE").rest


def test_probes_ask_what_the_gateway_answers():
    asked = {name: GATEWAY[f"{name}Probe"]["httpGet"] for name in ("liveness", "readiness", "startup")}
    assert {name: each["path"] for name, each in asked.items()} == {
        "liveness": "/healthz",
        "readiness": "/readyz",
        "startup": "/healthz",
    }
    assert all(each["path"] in PLAIN and each["port"] == "http" for each in asked.values())


def test_the_pod_is_given_the_time_that_calls_in_flight_get():
    _, pause = GATEWAY["lifecycle"]["preStop"]["exec"]["command"]
    assert POD_SPEC["terminationGracePeriodSeconds"] >= int(pause) + max(GRACE, IDLE) + 10


def test_the_pod_runs_as_the_images_user_without_rights():
    context = POD_SPEC["securityContext"]
    assert f"{context['runAsUser']}:{context['runAsGroup']}" == last("USER").rest
    assert context["fsGroup"] == context["runAsGroup"]
    assert context["runAsNonRoot"]
    assert GATEWAY["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert POD_SPEC["automountServiceAccountToken"] is False


def test_what_is_mounted_is_there_and_none_lies_in_another():
    assert MOUNTS.keys() == VOLUMES.keys()
    assert VOLUMES["config"]["configMap"]["name"] == DOCUMENTS["ConfigMap"]["metadata"]["name"]
    claim = VOLUMES["state"]["persistentVolumeClaim"]["claimName"]
    assert claim == DOCUMENTS["PersistentVolumeClaim"]["metadata"]["name"]
    # The runtime cannot make a mount point in a volume that is read-only.
    assert not any(a != b and a.startswith(f"{b}/") for a in MOUNTS.values() for b in MOUNTS.values())
    command = last("ENTRYPOINT").words
    assert MOUNTS["state"] == command[command.index("--state") + 1]
    (file,) = DOCUMENTS["ConfigMap"]["data"]
    assert f"{MOUNTS['config']}/{file}" == command[2]
    # One writer of one volume: two pods at once would be two processes on two machines.
    assert DOCUMENTS["Deployment"]["spec"]["replicas"] == 1
    assert DOCUMENTS["Deployment"]["spec"]["strategy"]["type"] == "Recreate"


def test_the_secrets_mode_is_one_that_the_gateway_takes():
    assert VOLUMES["keys"]["secret"]["defaultMode"] == 0o440


def test_the_gateway_takes_the_configuration(tmp_path: Path):
    text = DOCUMENTS["ConfigMap"]["data"]["mcp.json"]
    (tmp_path / "dashboard").write_text("a-key-for-the-dashboard")
    content = json.loads(text.replace(MOUNTS["keys"], str(tmp_path)))
    manager = Manager(content["mcpServers"])
    settings = parse_settings(content["gateway"], tuple(manager))
    assert settings.access.asks, "it listens on all addresses"
    assert not settings.dashboard.open
    created = MANIFEST.read_text().partition("apiVersion")[0]
    for name in ("sealing", "dashboard", "clients.json"):
        assert name in created
        assert f"{MOUNTS['keys']}/{name}" in text + " ".join(GATEWAY["args"])
