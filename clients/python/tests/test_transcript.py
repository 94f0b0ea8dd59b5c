"""Holds the proofs against the vectors of the library."""
import hmac
import json
import pathlib
import unittest

from connectplugin import transcript
from connectplugin.wire import handshake_pb2

VECTORS = pathlib.Path(__file__).parents[3] / "docs/testdata/handshake_vectors.json"


class Vectors(unittest.TestCase):
    def test_every_value_of_every_vector(self) -> None:
        vectors = json.loads(VECTORS.read_text())
        self.assertGreater(len(vectors), 3)
        for v in vectors:
            with self.subTest(v["name"]):
                self.check({k: x if k == "name" else bytes.fromhex(x) for k, x in v.items()})

    def check(self, v: dict) -> None:
        request = handshake_pb2.HandshakeRequest.FromString(v["request"])
        response = handshake_pb2.HandshakeResponse.FromString(v["response"])
        binding = v["binding"] or None
        self.assertEqual(v["request_transcript"], transcript.request_transcript(request, binding))
        self.assertEqual(v["client_key"], transcript.derive_key(v["secret"], request.client_nonce, transcript.CLIENT_INFO))
        self.assertEqual(v["request_hash"], transcript.request_hash(request))
        self.assertEqual(v["response_transcript"], transcript.response_transcript(request, response, binding))
        self.assertTrue(transcript.response_is_proven(request, response, v["secret"], binding))
        self.assertFalse(transcript.response_is_proven(request, response, v["secret"] + b"x", binding))
        response.warnings.append("altered")
        self.assertFalse(transcript.response_is_proven(request, response, v["secret"], binding))
        proof = request.client_proof
        transcript.prove_request(request, v["secret"], binding)
        self.assertTrue(hmac.compare_digest(proof, request.client_proof))


if __name__ == "__main__":
    unittest.main()
