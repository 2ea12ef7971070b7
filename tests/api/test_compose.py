"""docker-compose.yml and what it builds from name files, options and variables that exist."""

import pathlib
import re

import yaml

from gateway import run

ROOT = pathlib.Path(__file__).resolve().parents[2]
COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))


def test_every_service_is_built_from_a_file_of_ours():
    for service in COMPOSE["services"].values():
        assert (ROOT / service["build"]["dockerfile"]).is_file()
        for needed in service.get("depends_on", {}):
            assert needed in COMPOSE["services"]


def test_the_files_that_are_copied_are_there_and_the_scripts_as_well():
    for name in ["sql/postgres/Dockerfile", "sync_api/Dockerfile"]:
        text = (ROOT / name).read_text(encoding="utf-8")
        for source in re.findall(r"^COPY ([\w./]+) ", text, re.MULTILINE):
            assert (ROOT / source).exists(), source
        for script in re.findall(r"^RUN bash (\S+)", text, re.MULTILINE):
            assert (ROOT / script).is_file(), script


def test_the_gateways_options_and_variables_exist(database):
    help_text = run("--help").stdout
    for service in ["token", "gateway"]:
        for variable in COMPOSE["services"][service]["environment"]:
            assert f"[env: {variable}" in help_text, variable
    command = COMPOSE["services"]["token"]["command"]
    assert run("--database", database.url, *command).stdout.startswith("sync_")
    assert run("--database", database.url, *command).stdout == "", "the second start makes no other"


def test_ports_are_published_on_this_machine_only():
    for service in COMPOSE["services"].values():
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", []))
