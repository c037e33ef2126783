"""The Kustomize base renders, fits Kubernetes' schemas and the binaries' flags.

Rendered by `kubectl kustomize` where kubectl is installed; without it the
resources named by kustomization.yaml are read as they are. The flags are looked
up in the --help of the binaries in $ONEGRID_BIN, by default bazel-bin.
"""

import os
import pathlib
import re
import shutil
import subprocess

import kubernetes_validate
import pytest
import yaml

ROOT = pathlib.Path(__file__).resolve().parents[2]
BASE = ROOT / "deploy" / "kubernetes" / "base"
BIN = pathlib.Path(os.environ.get("ONEGRID_BIN", ROOT / "bazel-bin"))
GRPC_SERVICES = ["controller", "evaluator", "exporter", "finetuner",
                 "inference"]
SERVICES = sorted(GRPC_SERVICES + ["gateway"])


def render():
    if shutil.which("kubectl"):
        text = subprocess.run(
            ["kubectl", "kustomize", str(BASE)], check=True,
            capture_output=True, text=True).stdout
    else:
        kustomization = yaml.safe_load(
            (BASE / "kustomization.yaml").read_text())
        text = "\n---\n".join(
            (BASE / name).read_text() for name in kustomization["resources"])
    return [document for document in yaml.safe_load_all(text) if document]


OBJECTS = render()
DEPLOYMENTS = {o["spec"]["template"]["spec"]["containers"][0]["name"]: o
               for o in OBJECTS if o["kind"] == "Deployment"}


def pod_of(service):
    return DEPLOYMENTS[service]["spec"]["template"]["spec"]


def container_of(service):
    (container,) = pod_of(service)["containers"]
    return container


def test_every_service_has_one_deployment():
    assert sorted(DEPLOYMENTS) == SERVICES


def test_kustomization_names_every_file():
    kustomization = yaml.safe_load((BASE / "kustomization.yaml").read_text())
    files = {p.name for p in BASE.glob("*.yaml")} - {"kustomization.yaml"}
    assert set(kustomization["resources"]) == files


@pytest.mark.parametrize(
    "document", OBJECTS,
    ids=lambda o: f"{o['kind']}-{o['metadata']['name']}")
def test_object_fits_the_schema(document):
    kubernetes_validate.validate(
        document, kubernetes_validate.latest_version(), strict=True)


def test_an_unknown_field_would_be_refused():
    broken = {"apiVersion": "v1", "kind": "Service",
              "metadata": {"name": "a"}, "spec": {"portz": []}}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(
            broken, kubernetes_validate.latest_version(), strict=True)


@pytest.mark.parametrize("service", SERVICES)
def test_pod_runs_without_privileges(service):
    pod = pod_of(service)
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["runAsUser"] > 0
    assert pod["automountServiceAccountToken"] is False
    security = container_of(service)["securityContext"]
    assert security["readOnlyRootFilesystem"] is True
    assert security["allowPrivilegeEscalation"] is False
    assert security["capabilities"]["drop"] == ["ALL"]


@pytest.mark.parametrize("service", SERVICES)
def test_container_asks_for_resources_and_has_a_memory_limit(service):
    resources = container_of(service)["resources"]
    assert {"cpu", "memory"} <= set(resources["requests"])
    assert "memory" in resources["limits"]


def port_of(container):
    """The port that the flags open, which must be the only one declared."""
    assert "--host=0.0.0.0" in container["args"]
    (port,) = [int(a.split("=")[1]) for a in container["args"]
               if a.startswith("--port=")]
    assert [p["containerPort"] for p in container["ports"]] == [port]
    return port


@pytest.mark.parametrize("service", GRPC_SERVICES)
def test_probes_are_grpc_on_the_port_that_the_flags_open(service):
    container = container_of(service)
    port = port_of(container)
    probes = ["startupProbe", "readinessProbe", "livenessProbe"]
    if service == "inference":
        # A server that drains is alive, though its health says NOT_SERVING.
        assert container["livenessProbe"]["tcpSocket"] == {"port": port}
        probes.remove("livenessProbe")
    for probe in probes:
        if probe in container:
            assert container[probe]["grpc"]["port"] == port
    assert "startupProbe" in container and "livenessProbe" in container


def test_the_gateway_is_ready_with_its_backend_and_alive_without():
    container = container_of("gateway")
    port = port_of(container)
    assert container["readinessProbe"]["httpGet"] == {
        "path": "/health", "port": port}
    assert container["livenessProbe"]["tcpSocket"] == {"port": port}


@pytest.mark.parametrize("service", SERVICES)
def test_every_folder_in_the_flags_is_a_writable_or_model_volume(service):
    container = container_of(service)
    mounts = {m["mountPath"]: m for m in container["volumeMounts"]}
    volumes = {v["name"] for v in pod_of(service)["volumes"]}
    assert {m["name"] for m in mounts.values()} == volumes
    assert "/tmp" in mounts
    for argument in container["args"]:
        value = argument.split("=", 1)[1]
        if value.startswith("/"):
            assert any(value == path or value.startswith(path + "/")
                       for path in mounts), argument


def test_services_select_a_deployment_and_open_its_port():
    for service in (o for o in OBJECTS if o["kind"] == "Service"):
        selector = service["spec"]["selector"]
        (target,) = [
            d for d in DEPLOYMENTS.values()
            if selector.items()
            <= d["spec"]["template"]["metadata"]["labels"].items()]
        container = target["spec"]["template"]["spec"]["containers"][0]
        names = {p["name"]: p["containerPort"] for p in container["ports"]}
        for port in service["spec"]["ports"]:
            assert names[port["targetPort"]] == port["port"]


def test_workers_take_work_from_the_controllers_service():
    (controller,) = [o for o in OBJECTS if o["kind"] == "Service"
                     and o["metadata"]["name"] == "onegrid-controller"]
    port = controller["spec"]["ports"][0]["port"]
    for worker in ("evaluator", "exporter", "finetuner"):
        assert (f"--controller=onegrid-controller:{port}"
                in container_of(worker)["args"])


def test_evaluations_go_to_the_inference_service():
    (inference,) = [o for o in OBJECTS if o["kind"] == "Service"
                    and o["metadata"]["name"] == "onegrid-inference"]
    port = inference["spec"]["ports"][0]["port"]
    assert (f"--inference_endpoint=onegrid-inference:{port}"
            in container_of("controller")["args"])


def test_the_gateway_asks_the_inference_service():
    (inference,) = [o for o in OBJECTS if o["kind"] == "Service"
                    and o["metadata"]["name"] == "onegrid-inference"]
    port = inference["spec"]["ports"][0]["port"]
    assert (f"--backend=onegrid-inference:{port}"
            in container_of("gateway")["args"])


@pytest.mark.parametrize("service", ["gateway", "inference"])
def test_termination_leaves_time_to_drain(service):
    (drain,) = [int(a.split("=")[1]) for a in container_of(service)["args"]
                if a.startswith("--drain_seconds=")]
    assert pod_of(service)["terminationGracePeriodSeconds"] > drain


@pytest.mark.parametrize("service", SERVICES)
def test_binary_knows_every_flag(service):
    binary = BIN / "services" / service / service
    run = subprocess.run([str(binary), "--help"], capture_output=True,
                         text=True, timeout=60)
    known = set(re.findall(r"--([a-z0-9_]+) ", run.stdout + run.stderr))
    flags = {a[2:].split("=")[0] for a in container_of(service)["args"]}
    assert flags <= known
