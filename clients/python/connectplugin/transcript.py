"""The proofs of the handshake, as docs/protocol.md writes them down under "Proofs"."""
import hashlib
import hmac
import struct
from typing import Any, Optional

from google.protobuf.descriptor import FieldDescriptor as F
from google.protobuf.message import Message

NONCE_SIZE = 32
MIN_SECRET_SIZE = 16

CLIENT_INFO = b"connectplugin handshake v1 client"
SERVER_INFO = b"connectplugin handshake v1 server"
REQUEST_LABEL = b"connectplugin handshake v1 request"
HASH_LABEL = b"connectplugin handshake v1 request hash"
RESPONSE_LABEL = b"connectplugin handshake v1 response"

_U64 = (1 << 64) - 1


def derive_key(secret: bytes, salt: bytes, info: bytes) -> bytes:
    """HKDF-SHA256 (RFC 5869) with 32 bytes of output."""
    extracted = hmac.digest(salt, secret, "sha256")
    return hmac.digest(extracted, info + b"\x01", "sha256")


def request_transcript(request: Message, binding: Optional[bytes] = None) -> bytes:
    """What the proof of the client covers."""
    return _bytes(REQUEST_LABEL) + _message(request, "client_proof") + _optional(binding)


def request_hash(request: Message) -> bytes:
    """What ties the answer to its request."""
    return hashlib.sha256(_bytes(HASH_LABEL) + _message(request)).digest()


def response_transcript(request: Message, response: Message, binding: Optional[bytes] = None) -> bytes:
    """What the proof of the host covers."""
    return (_bytes(RESPONSE_LABEL) + _message(response, "challenge_response")
            + _bytes(request_hash(request)) + _optional(binding))


def prove_request(request: Any, secret: bytes, binding: Optional[bytes] = None) -> None:
    """Sets client_proof. Nothing of the request may change afterwards."""
    key = derive_key(secret, request.client_nonce, CLIENT_INFO)
    request.client_proof = hmac.digest(key, request_transcript(request, binding), "sha256")


def response_is_proven(request: Any, response: Any, secret: bytes, binding: Optional[bytes] = None) -> bool:
    """Reports whether an answer is that of a host which holds the secret, to this request, unaltered."""
    if len(response.server_nonce) != NONCE_SIZE:
        return False
    key = derive_key(secret, request.client_nonce + response.server_nonce, SERVER_INFO)
    want = hmac.digest(key, response_transcript(request, response, binding), "sha256")
    return hmac.compare_digest(want, response.challenge_response)


def health_proof(token: str, runtime_id: str, challenge: bytes) -> bytes:
    """Shows that who holds a token answers for a runtime id ("Health questions"). It does not give the token away."""
    key = hashlib.sha256(token.encode()).digest()[:16]
    message = _bytes(b"connectplugin health v1") + _bytes(runtime_id.encode()) + _bytes(challenge)
    return hmac.digest(key, message, "sha256")


def _u64(n: int) -> bytes:
    return struct.pack(">Q", n & _U64)


def _bytes(b: bytes) -> bytes:
    return _u64(len(b)) + b


def _optional(b: Optional[bytes]) -> bytes:
    return b"\x00" if b is None else b"\x01" + _bytes(b)


def _message(message: Message, without: str = "") -> bytes:
    entries = []
    fields: list[tuple[Any, Any]] = message.ListFields()  # by number
    unknown = _unknown_fields(message)
    if unknown:
        entries.append(_u64(0) + b"u" + _bytes(unknown))
    for field, value in fields:
        if field.name != without:
            entries.append(_u64(field.number) + _field(field, value))
    return _u64(len(entries)) + b"".join(entries)


def _unknown_fields(message: Message) -> bytes:
    """The bytes as received of the fields that our definition does not have, at this level."""
    rest = type(message)()
    rest.CopyFrom(message)
    for field, _ in message.ListFields():
        rest.ClearField(field.name)
    return bytes(rest.SerializeToString())


def _field(field: Any, value: Any) -> bytes:
    entry = field.message_type
    if entry is not None and entry.GetOptions().map_entry:
        key, of = entry.fields_by_name["key"], entry.fields_by_name["value"]
        order = sorted(value, key=lambda k: _map_order(key, k))
        return b"k" + _u64(len(order)) + b"".join(_value(key, k) + _value(of, value[k]) for k in order)
    if field.label == F.LABEL_REPEATED:
        return b"l" + _u64(len(value)) + b"".join(_value(field, v) for v in value)
    return _value(field, value)


def _map_order(key: Any, value: Any) -> bytes:
    return str(value).encode() if key.type == F.TYPE_STRING else _u64(int(value))


def _value(field: Any, value: Any) -> bytes:
    if field.type == F.TYPE_STRING:
        return b"s" + _bytes(value.encode())
    if field.type == F.TYPE_BYTES:
        return b"b" + _bytes(value)
    if field.type in (F.TYPE_MESSAGE, F.TYPE_GROUP):
        return b"m" + _message(value)
    if field.type in (F.TYPE_FLOAT, F.TYPE_DOUBLE):
        return b"f" + struct.pack(">d", value)
    return b"i" + _u64(int(value))
