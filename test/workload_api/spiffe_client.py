"""A program of a workload's with the package spiffe: takes commands as the Go program beside it does.

    spiffe_client.py ADDRESS

README.md describes what goes in and what comes out.
"""

import importlib.metadata
import json
import sys

from spiffe import JwtSource, TrustDomain, WorkloadApiClient, X509Source
from spiffe.svid.jwt_svid import JwtSvid

SECONDS = 20


def commands_of(address):
    """The commands by name, each of which is given the rest of its line and returns what it has learned."""
    client = WorkloadApiClient(address)
    kept = {}

    def source():
        if "x509" not in kept:
            kept["x509"] = X509Source(client, timeout_in_seconds=SECONDS)
        return kept["x509"]

    def current():
        svid = source().svid
        return {"id": str(svid.spiffe_id), "serial": format(svid.leaf.serial_number, "x")}

    def bundles(name):
        trust_domain = TrustDomain(name)
        with JwtSource(client, timeout_in_seconds=SECONDS) as jwt:
            return {
                "x509": len(source().get_bundle_for_trust_domain(trust_domain).x509_authorities),
                "jwt": len(jwt.get_bundle_for_trust_domain(trust_domain).jwt_authorities),
            }

    def fetch_jwt(audience):
        svid = client.fetch_jwt_svid(audience={audience})
        bundle = client.fetch_jwt_bundles().get_bundle_for_trust_domain(svid.spiffe_id.trust_domain)
        validated = JwtSvid.parse_and_validate(svid.token, bundle, {audience})
        return {"id": str(validated.spiffe_id), "token": svid.token}

    def validate(token, audience):
        return {"id": str(client.validate_jwt_svid(token, audience).spiffe_id)}

    return {"source": current, "bundles": bundles, "jwt": fetch_jwt, "validate": validate}


def main():
    """Answers each line of standard input with one line of JSON."""
    say = lambda answer: print(json.dumps(answer), flush=True)
    commands = commands_of(sys.argv[1])
    say({"ready": True, "version": importlib.metadata.version("spiffe")})
    for line in sys.stdin:
        name, *arguments = json.loads(line)
        try:
            say({"ok": True, **commands[name](*arguments)})
        except Exception as error:  # pylint: disable=broad-except
            say({"ok": False, "error": f"{type(error).__name__}: {error}"})


if __name__ == "__main__":
    main()
