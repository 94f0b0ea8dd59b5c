package certs_test

import (
	"bytes"
	"crypto/ed25519"
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/masegraye/connect-plugin-go/internal/certs"
)

// newPEM returns two certificates and a key as PEM.
func newPEM(tb testing.TB) (one, two, key []byte) {
	tb.Helper()

	now := time.Now()
	ca := newCA(tb, certs.ECDSA, time.Hour, now)
	leaf := issue(tb, ca, newRequest(tb, pluginID("a"), time.Minute), now)

	return ca.CertificatePEM(), certs.EncodeCertificates(leaf.Certificate...), caKey(tb, ca)
}

func TestParseCertificates(t *testing.T) {
	t.Parallel()

	one, two, key := newPEM(t)
	damaged := bytes.Replace(one, []byte("MII"), []byte("M!I"), 1)

	for name, test := range map[string]struct {
		data []byte
		want int // 0: refused
	}{
		"one":                      {one, 1},
		"two":                      {slices.Concat(one, two), 2},
		"with text":                {slices.Concat([]byte("# CA\n"), one, []byte("\n# leaf\n"), two, []byte("end\n")), 2},
		"empty":                    {nil, 0},
		"text only":                {[]byte("hello"), 0},
		"cut in the second block":  {slices.Concat(one, two[:len(two)/2]), 0},
		"cut in the second header": {slices.Concat(one, two[:8]), 0},
		"cut in the footer":        {slices.Concat(one, two[:len(two)-10]), 0},
		"damaged before a good":    {slices.Concat(damaged, two), 0},
		"key inside":               {slices.Concat(one, key), 0},
		"another type":             {bytes.ReplaceAll(one, []byte("CERTIFICATE"), []byte("TRUSTED CERTIFICATE")), 0},
		"no DER":                   {[]byte("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"), 0},
	} {
		list, err := certs.ParseCertificates(test.data)
		if len(list) != test.want || (test.want == 0) != errors.Is(err, certs.ErrPEM) {
			t.Errorf("%s: %d certificates, %v, want %d", name, len(list), err, test.want)
		}
	}
}

func TestParseKey(t *testing.T) {
	t.Parallel()

	cert, _, _ := newPEM(t)

	for _, kind := range []certs.KeyType{certs.ECDSA, certs.Ed25519} {
		key, err := certs.NewKey(kind)
		if err != nil {
			t.Fatal(err)
		}

		data, err := certs.EncodeKey(key)
		if err != nil {
			t.Fatal(err)
		}

		parsed, err := certs.ParseKey(data)
		if err != nil {
			t.Fatalf("ParseKey: %v", err)
		}

		if again, err := certs.EncodeKey(parsed); err != nil || !bytes.Equal(again, data) {
			t.Errorf("key type %d does not survive the round trip: %v", kind, err)
		}

		for name, bad := range map[string][]byte{
			"empty":       nil,
			"certificate": cert,
			"two keys":    slices.Concat(data, data),
			"cut":         data[:len(data)-10],
			"no PKCS #8":  []byte("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"),
		} {
			if _, err := certs.ParseKey(bad); !errors.Is(err, certs.ErrPEM) {
				t.Errorf("%s: %v, want ErrPEM", name, err)
			}
		}
	}

	if _, err := certs.EncodeKey(ed25519.PublicKey{}); err == nil {
		t.Error("a public key was encoded as a private one")
	}
}

func FuzzParsePEM(f *testing.F) {
	one, two, key := newPEM(f)
	for _, seed := range [][]byte{one, two, key, slices.Concat(one, two), slices.Concat(one, two[:100]), nil} {
		f.Add(seed)
	}

	f.Fuzz(func(t *testing.T, data []byte) {
		if list, err := certs.ParseCertificates(data); err == nil {
			raw := make([][]byte, 0, len(list))
			for _, cert := range list {
				raw = append(raw, cert.Raw)
				_ = certs.CertificateIdentity(cert)
				_ = certs.Claims(cert)
			}

			if again, err := certs.ParseCertificates(certs.EncodeCertificates(raw...)); err != nil || len(again) != len(list) {
				t.Fatalf("%d certificates read back as %d: %v", len(list), len(again), err)
			}
		}

		if signer, err := certs.ParseKey(data); err == nil {
			if _, err := certs.EncodeKey(signer); err != nil {
				t.Fatalf("a key that was read cannot be written: %v", err)
			}
		}

		if ca, err := certs.ParseCA(data, data, time.Now()); err == nil {
			t.Fatalf("one block was both certificate and key: %v", ca)
		}
	})
}
