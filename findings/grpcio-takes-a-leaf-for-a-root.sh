#!/usr/bin/env bash
# Guess: root_certificates of grpc.ssl_channel_credentials have to be those of an authority: a server's own certificate,
# which another authority signed and which may sign nothing, is no root, as for Python's ssl and openssl verify.
# Seen: grpcio 1.51.1 (Debian 12) accepts the server's certificate as its only root, and then no other of the same
# authority: BoringSSL and gRPC verify a partial chain. Python's ssl does so too with VERIFY_X509_PARTIAL_CHAIN alone.
# So a certificate can be pinned where the channel has no hook to look at it.
# Exits with 0 as long as this holds.
set -euo pipefail

dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"
apt-get download python3-grpcio=1.51.1-3+b1 > /dev/null 2>&1
dpkg-deb -x python3-grpcio_*.deb root
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout ca.key -out ca.crt -days 2 -subj /CN=ca \
  -addext basicConstraints=critical,CA:true > /dev/null 2>&1
for name in server other; do
  openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout $name.key -out $name.csr -subj /CN=$name > /dev/null 2>&1
  printf 'basicConstraints=critical,CA:false\nsubjectAltName=DNS:localhost\nextendedKeyUsage=serverAuth\n' > ext
  openssl x509 -req -in $name.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 2 -extfile ext -out $name.crt > /dev/null 2>&1
done
cat > main.py <<'PY'
import pathlib
import socket
import ssl
import sys
from concurrent import futures

import grpc

print("python", sys.version.split()[0], "grpcio", grpc.__version__, ssl.OPENSSL_VERSION)
read = lambda name: pathlib.Path(name).read_bytes()
server = grpc.server(futures.ThreadPoolExecutor(2))
server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(
    "e.Echo", {"Unary": grpc.unary_unary_rpc_method_handler(lambda request, context: request)}),))
port = server.add_secure_port("127.0.0.1:0", grpc.ssl_server_credentials([(read("server.key"), read("server.crt"))]))
server.start()


def by_grpcio(root):
    with grpc.secure_channel(f"127.0.0.1:{port}", grpc.ssl_channel_credentials(read(root)),
                             [("grpc.ssl_target_name_override", "localhost")]) as channel:
        try:
            channel.unary_unary("/e.Echo/Unary")(b"x", timeout=5)
            return "accepted"
        except grpc.RpcError as e:
            return e.code().name


def by_ssl(root):
    context = ssl.create_default_context(cafile=root)
    context.set_alpn_protocols(["h2"])
    try:
        with socket.create_connection(("127.0.0.1", port)) as raw, context.wrap_socket(raw, server_hostname="localhost"):
            return "accepted"
    except ssl.SSLCertVerificationError:
        return "refused"


seen = {root: (by_grpcio(root + ".crt"), by_ssl(root + ".crt")) for root in ("ca", "server", "other")}
for root, (grpcio, own) in seen.items():
    print(f"with {root}.crt for the only root: grpcio {grpcio}, Python's ssl {own}")
server.stop(0)
if seen != {"ca": ("accepted", "accepted"), "server": ("accepted", "refused"), "other": ("UNAVAILABLE", "refused")}:
    print("CHANGED")
    sys.exit(1)
PY
PYTHONPATH="$dir/root/usr/lib/python3/dist-packages" timeout 60 /usr/bin/python3 main.py
