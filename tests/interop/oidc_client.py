"""Verifies a JWT-SVID as a service elsewhere would: PyJWT, with the keys that OpenID Connect discovery names, over HTTPS.

Arguments: the issuer, the address at which its host is to be found, a file with the roots, the audience. The token comes on stdin;
its claims and the key's name are printed as JSON.
"""

import json
import socket
import ssl
import sys
import urllib.parse
import urllib.request

import jwt


def main() -> None:
    issuer, address, roots, audience = sys.argv[1:]
    host, resolve = urllib.parse.urlsplit(issuer).hostname, socket.getaddrinfo
    # What a name server would say: everything else, the names in the certificate too, is as the issuer's URL has it.
    socket.getaddrinfo = lambda name, *rest, **more: resolve(address if name == host else name, *rest, **more)
    context, token = ssl.create_default_context(cafile=roots), sys.stdin.read().strip()
    with urllib.request.urlopen(f"{issuer}/.well-known/openid-configuration", context=context, timeout=20) as answer:
        discovery = json.load(answer)
    keys = jwt.PyJWKClient(discovery["jwks_uri"], ssl_context=context, timeout=20)
    key = keys.get_signing_key_from_jwt(token)
    algorithms = discovery["id_token_signing_alg_values_supported"]
    claims = jwt.decode(token, key.key, algorithms=algorithms, audience=audience, issuer=discovery["issuer"])
    print(json.dumps({"kid": key.key_id, "claims": claims}))


if __name__ == "__main__":
    main()
