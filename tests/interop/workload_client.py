"""Asks a Workload API socket for an X.509-SVID and its bundles through py-spiffe, and prints what came as JSON lines.

Modes: `once` fetches and ends; `watch` prints each update until its input is closed; `raw` makes the calls that no well-behaved
client makes and prints their gRPC codes; `as-uid UID` makes one proper call as another user and prints its code.
"""

import hashlib
import json
import os
import sys
import threading

import grpc
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from spiffe import TrustDomain, WorkloadApiClient, X509Source
from spiffe._proto import workload_pb2, workload_pb2_grpc


def digest(certificate: x509.Certificate) -> str:
    return hashlib.sha256(certificate.public_bytes(serialization.Encoding.DER)).hexdigest()


def describe(svid, bundles) -> dict:
    domain = TrustDomain(svid.spiffe_id.trust_domain.name)
    bundle = bundles.get_bundle_for_trust_domain(domain)
    return {
        "id": str(svid.spiffe_id),
        "serial": format(svid.leaf.serial_number, "x"),
        "chain": [digest(certificate) for certificate in svid.cert_chain],
        "key_matches": svid.private_key.public_key() == svid.leaf.public_key(),
        "roots": sorted(digest(certificate) for certificate in bundle.x509_authorities),
        "bundles": len(bundles.bundles),
    }


def say(value) -> None:
    print(json.dumps(value), flush=True)


def once(address: str) -> None:
    with WorkloadApiClient(socket_path=address) as client:
        say(describe(client.fetch_x509_svid(timeout=10), client.fetch_x509_bundles(timeout=10)))


def watch(address: str) -> None:
    with X509Source(socket_path=address, timeout_in_seconds=10) as source:
        def report() -> None:
            context = source.get_x509_context()
            say(describe(context.default_svid, context.x509_bundle_set))

        changed = threading.Event()
        source.subscribe_for_updates(changed.set)
        threading.Thread(target=lambda: (sys.stdin.read(), os._exit(0)), daemon=True).start()
        report()
        while changed.wait():
            changed.clear()
            report()


def code(call, request, metadata) -> str:
    try:
        answer = call(request, metadata=metadata, timeout=10)
        if hasattr(answer, "__next__"):
            next(answer)
            answer.cancel()
        return "OK"
    except grpc.RpcError as error:
        return error.code().name


def raw(address: str) -> None:
    good = (("workload.spiffe.io", "true"),)
    with grpc.insecure_channel(address) as channel:
        stub = workload_pb2_grpc.SpiffeWorkloadAPIStub(channel)
        svid, bundles = workload_pb2.X509SVIDRequest(), workload_pb2.X509BundlesRequest()
        say({
            "no_header": code(stub.FetchX509SVID, svid, ()),
            "no_header_bundles": code(stub.FetchX509Bundles, bundles, ()),
            "wrong_value": code(stub.FetchX509SVID, svid, (("workload.spiffe.io", "True"),)),
            "good": code(stub.FetchX509SVID, svid, good),
            "jwt": code(stub.FetchJWTSVID, workload_pb2.JWTSVIDRequest(audience=["a"]), good),
            "jwt_bundles": code(stub.FetchJWTBundles, workload_pb2.JWTBundlesRequest(), good),
            "validate": code(stub.ValidateJWTSVID, workload_pb2.ValidateJWTSVIDRequest(audience="a", svid="b"), good),
            "unknown_method": code(
                channel.unary_unary("/SpiffeWorkloadAPI/FetchNothing", request_serializer=lambda _: b"",
                                    response_deserializer=lambda b: b), None, good),
        })


def as_uid(address: str, uid: int) -> None:
    with grpc.insecure_channel(address) as channel:
        stub = workload_pb2_grpc.SpiffeWorkloadAPIStub(channel)
        os.setgid(uid)
        os.setuid(uid)
        say({"code": code(stub.FetchX509SVID, workload_pb2.X509SVIDRequest(), (("workload.spiffe.io", "true"),))})


def main() -> None:
    mode, address = sys.argv[1], sys.argv[2]
    if mode == "as-uid":
        as_uid(address, int(sys.argv[3]))
    else:
        {"once": once, "watch": watch, "raw": raw}[mode](address)


if __name__ == "__main__":
    main()
