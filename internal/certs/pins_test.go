package certs_test

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/masegraye/connect-plugin-go/internal/certs"
)

// rfcPin is a pin from RFC 7469, section 2.1.5.
const rfcPin = "d6qzRu9zOECb90Uez27xWltNsj0e1Md7GkYYkVoZWmM="

func TestParsePin(t *testing.T) {
	t.Parallel()

	pin, err := certs.ParsePin(rfcPin)
	if err != nil || pin.String() != rfcPin {
		t.Fatalf("ParsePin(%q) = %s, %v", rfcPin, pin, err)
	}

	for _, s := range []string{hex.EncodeToString(pin[:]), strings.ToUpper(hex.EncodeToString(pin[:]))} {
		if got, err := certs.ParsePin(s); err != nil || got != pin {
			t.Errorf("ParsePin(%q) = %s, %v, want %s", s, got, err, pin)
		}
	}
}

func TestParsePinRefuses(t *testing.T) {
	t.Parallel()

	for name, s := range map[string]string{
		"empty":              "",
		"no padding":         strings.TrimSuffix(rfcPin, "="),
		"URL alphabet":       strings.Repeat("-", 43) + "=",
		"loose last bits":    rfcPin[:42] + "N=",
		"new line":           rfcPin[:20] + "\n" + rfcPin[21:],
		"directive":          `pin-sha256="` + rfcPin + `"`,
		"33 bytes":           strings.Repeat("A", 44),
		"31 bytes":           strings.Repeat("A", 42) + "==",
		"SHA-1":              strings.Repeat("ab", 20),
		"not hex":            strings.Repeat("zz", 32),
		"48 bytes of base64": strings.Repeat("/", 64),
		"32 bytes, spaced":   " " + rfcPin,
	} {
		if pin, err := certs.ParsePin(s); !errors.Is(err, certs.ErrPin) {
			t.Errorf("%s: ParsePin(%q) = %s, %v, want ErrPin", name, s, pin, err)
		}
	}

	_, err := certs.ParsePins([]string{rfcPin, "x"})
	if !errors.Is(err, certs.ErrPin) || !strings.HasPrefix(err.Error(), "[1]: ") {
		t.Errorf("ParsePins: %v, want ErrPin at [1]", err)
	}
}

func FuzzParsePin(f *testing.F) {
	f.Add(rfcPin)
	f.Add(strings.Repeat("0a", 32))
	f.Add("")
	f.Fuzz(func(t *testing.T, s string) {
		pin, err := certs.ParsePin(s)
		if err != nil {
			return
		}

		if s != pin.String() && strings.ToLower(s) != hex.EncodeToString(pin[:]) {
			t.Fatalf("ParsePin(%q) = %s: neither spelling", s, pin)
		}
	})
}

func TestAudit_GAPPINNING_OtherKey(t *testing.T) {
	t.Parallel()

	now := time.Now()
	ca, other := newCA(t, certs.ECDSA, time.Hour, now), newCA(t, certs.ECDSA, time.Hour, now)
	serverRequest := newRequest(t, certs.ID{TrustDomain: domain, Role: certs.RoleHost}, time.Hour)
	clientRequest := newRequest(t, pluginID("a"), time.Hour)
	server, client := issue(t, ca, serverRequest, now), issue(t, ca, clientRequest, now)
	sibling := issue(t, ca, newRequest(t, pluginID("a"), time.Hour), now)
	sameKey := issue(t, ca, clientRequest, now)

	serve := func(pins ...certs.Pin) string {
		return serveTLS(t, &tls.Config{
			MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{*server},
			ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: ca.Pool(), VerifyConnection: certs.VerifyPins(pins),
		})
	}
	dial := func(address string, own *tls.Certificate, pins ...certs.Pin) error {
		_, err := dialTLS(t.Context(), address, &tls.Config{
			MinVersion: tls.VersionTLS13, RootCAs: ca.Pool(), Certificates: []tls.Certificate{*own},
			VerifyConnection: certs.VerifyPins(pins),
		})

		return err
	}

	serverPin, clientPin := certs.PinOf(server.Leaf), certs.PinOf(client.Leaf)
	// The sibling brings the pinned certificate along, without having its key.
	padded := &tls.Certificate{
		Certificate: [][]byte{sibling.Certificate[0], client.Certificate[0]}, PrivateKey: sibling.PrivateKey,
	}

	for name, test := range map[string]struct {
		serverSide, clientSide []certs.Pin
		own                    *tls.Certificate
		ok                     bool
	}{
		"both pinned":                    {[]certs.Pin{clientPin}, []certs.Pin{serverPin}, client, true},
		"renewed for the same key":       {[]certs.Pin{clientPin}, []certs.Pin{serverPin}, sameKey, true},
		"authority pinned":               {[]certs.Pin{certs.PinOf(ca.Certificate())}, []certs.Pin{certs.PinOf(ca.Certificate())}, client, true},
		"valid client, other key":        {[]certs.Pin{clientPin}, []certs.Pin{serverPin}, sibling, false},
		"pinned certificate sent along":  {[]certs.Pin{clientPin}, []certs.Pin{serverPin}, padded, false},
		"valid server, other key":        {[]certs.Pin{clientPin}, []certs.Pin{clientPin}, client, false},
		"other authority pinned":         {[]certs.Pin{clientPin}, []certs.Pin{certs.PinOf(other.Certificate())}, client, false},
		"no pin at all refuses everyone": {nil, []certs.Pin{serverPin}, client, false},
	} {
		err := dial(serve(test.serverSide...), test.own, test.clientSide...)
		if (err == nil) != test.ok {
			t.Errorf("%s: error %v, want success %t", name, err, test.ok)
		}
	}

	if err := certs.VerifyPins([]certs.Pin{clientPin})(tls.ConnectionState{}); !errors.Is(err, certs.ErrPinMismatch) {
		t.Errorf("no certificate: %v, want ErrPinMismatch", err)
	}

	chain := tls.ConnectionState{
		PeerCertificates: []*x509.Certificate{sibling.Leaf, client.Leaf},
		VerifiedChains:   [][]*x509.Certificate{{sibling.Leaf, ca.Certificate()}},
	}
	if err := certs.VerifyPins([]certs.Pin{clientPin})(chain); !errors.Is(err, certs.ErrPinMismatch) {
		t.Errorf("pinned certificate merely sent along: %v, want ErrPinMismatch", err)
	}
}
