"""A stock xDS client: official Envoy stubs (xds-protos) over grpcio, nothing of ours.

Opens DeltaAggregatedResources over mutual TLS, subscribes to every resource of one type, prints the first response
as one JSON line {"type_url", "nonce", "system_version_info", "resources": [{"name", "version"}], "removed": [...]},
acknowledges it and ends. Exits with 1 and a JSON line {"error"} when no response comes within --timeout seconds.
"""

import argparse
import json
import queue
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import grpc
from envoy.config.core.v3 import base_pb2
from envoy.service.discovery.v3 import ads_pb2_grpc, discovery_pb2


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--address", required=True, help="HOST:PORT of the control plane")
    parser.add_argument("--ca", required=True, type=Path, help="PEM of the authority that signed the server")
    parser.add_argument("--cert", required=True, type=Path, help="PEM chain of this node")
    parser.add_argument("--key", required=True, type=Path, help="PEM key of this node")
    parser.add_argument("--server-name", required=True, help="name in the server's certificate")
    parser.add_argument("--node-id", required=True)
    parser.add_argument("--type-url", required=True)
    parser.add_argument("--timeout", type=float, default=20.0, help="seconds for the whole exchange")
    return parser.parse_args()


def channel(options: argparse.Namespace) -> grpc.Channel:
    credentials = grpc.ssl_channel_credentials(
        root_certificates=options.ca.read_bytes(),
        private_key=options.key.read_bytes(),
        certificate_chain=options.cert.read_bytes(),
    )
    return grpc.secure_channel(
        options.address,
        credentials,
        options=[
            ("grpc.ssl_target_name_override", options.server_name),
            ("grpc.default_authority", options.server_name),
            ("grpc.max_receive_message_length", 64 << 20),
        ],
    )


def subscription(options: argparse.Namespace) -> discovery_pb2.DeltaDiscoveryRequest:
    return discovery_pb2.DeltaDiscoveryRequest(
        node=base_pb2.Node(id=options.node_id),
        type_url=options.type_url,
        resource_names_subscribe=["*"],
    )


def acknowledgement(response: discovery_pb2.DeltaDiscoveryResponse) -> discovery_pb2.DeltaDiscoveryRequest:
    return discovery_pb2.DeltaDiscoveryRequest(type_url=response.type_url, response_nonce=response.nonce)


def told(response: discovery_pb2.DeltaDiscoveryResponse) -> dict[str, object]:
    return {
        "type_url": response.type_url,
        "nonce": response.nonce,
        "system_version_info": response.system_version_info,
        "resources": [{"name": one.name, "version": one.version} for one in response.resources],
        "removed": list(response.removed_resources),
    }


def exchange(options: argparse.Namespace, over: grpc.Channel) -> dict[str, object]:
    outbound: queue.Queue[discovery_pb2.DeltaDiscoveryRequest | None] = queue.Queue()
    written = threading.Event()

    def requests() -> Iterator[discovery_pb2.DeltaDiscoveryRequest]:
        while (request := outbound.get()) is not None:
            yield request
        # grpcio asks for the next request only after it wrote the one before.
        written.set()

    stub = ads_pb2_grpc.AggregatedDiscoveryServiceStub(over)
    stream = stub.DeltaAggregatedResources(requests(), timeout=options.timeout)
    outbound.put(subscription(options))
    try:
        response = next(stream)
        outbound.put(acknowledgement(response))
    finally:
        outbound.put(None)
    written.wait(options.timeout)
    return told(response)


def main() -> int:
    options = parse()
    with channel(options) as over:
        try:
            print(json.dumps(exchange(options, over)))
        except (grpc.RpcError, StopIteration) as error:
            code = error.code().name if isinstance(error, grpc.Call) else "CLOSED"
            detail = error.details() if isinstance(error, grpc.Call) else "the stream ended without a response"
            print(json.dumps({"error": {"code": code, "message": detail}}))
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
