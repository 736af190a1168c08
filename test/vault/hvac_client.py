"""hvac as a client of a Vault-compatible API: takes steps from standard input as `vault-peers client` does.

    hvac_client.py --address URL [--ca FILE]

README.md describes what goes in and what comes out.
"""

import argparse
import importlib.metadata
import json
import sys

import hvac
import requests


def steps_of(client):
    """The steps by name. Each is given a line of standard input and returns what hvac returned."""
    kubernetes = client.auth.kubernetes
    token = client.auth.token

    def login(asked):
        with open(asked["jwtFile"], encoding="ascii") as file:
            return kubernetes.login(asked["role"], file.read(), mount_point=asked["mount"])

    def set_token(asked):
        client.token = asked["token"]

    return {
        "login": login,
        "set-token": set_token,
        "lookup-self": lambda _: token.lookup_self(),
        "renew-self": lambda asked: token.renew_self(asked.get("increment")),
        "revoke-self": lambda _: token.revoke_self(),
        "lookup": lambda asked: token.lookup(asked["token"]),
        "lookup-accessor": lambda asked: token.lookup_accessor(asked["accessor"]),
        "revoke-accessor": lambda asked: token.revoke_accessor(asked["accessor"]),
        "read": lambda asked: client.read(asked["path"]),
        "write": lambda asked: client.write_data(asked["path"], data=asked.get("data")),
        "list": lambda asked: client.list(asked["path"]),
        "delete": lambda asked: client.delete(asked["path"]),
        "configure": lambda asked: kubernetes.configure(mount_point=asked["mount"], **asked["data"]),
        "create-role": lambda asked: kubernetes.create_role(
            asked["role"], mount_point=asked["mount"], **asked["data"]
        ),
        "read-role": lambda asked: kubernetes.read_role(asked["role"], mount_point=asked["mount"]),
        "enable": lambda asked: client.sys.enable_auth_method("kubernetes", path=asked["mount"]),
        "disable": lambda asked: client.sys.disable_auth_method(asked["mount"]),
        "mounts": lambda _: client.sys.list_auth_methods(),
        "health": lambda _: client.sys.read_health_status(method="GET"),
        "seal-status": lambda _: client.sys.read_seal_status(),
        "leader": lambda _: client.sys.read_leader_status(),
    }


def take(step, asked, statuses):
    statuses.clear()
    outcome = {"step": asked["step"], "ok": True, "data": None}
    try:
        learned = step(asked)
        # Where there is no JSON to return, hvac returns the response.
        if not isinstance(learned, requests.Response):
            outcome["data"] = learned
    except (hvac.exceptions.VaultError, requests.RequestException) as refusal:
        outcome |= {"ok": False, "error": str(refusal)}
    return outcome | {"status": statuses[-1] if statuses else 0}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--address", required=True)
    parser.add_argument("--ca")
    arguments = parser.parse_args()
    client = hvac.Client(url=arguments.address, verify=arguments.ca or True)
    steps = steps_of(client)
    # hvac keeps the status to itself unless it is an error.
    statuses = []
    client.session.hooks["response"].append(lambda response, **_: statuses.append(response.status_code))
    print(json.dumps({"ready": True, "version": f"hvac {importlib.metadata.version('hvac')}"}), flush=True)
    for line in sys.stdin:
        asked = json.loads(line)
        print(json.dumps(take(steps[asked["step"]], asked, statuses)), flush=True)


if __name__ == "__main__":
    main()
