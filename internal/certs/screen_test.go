package certs_test

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"math/big"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/masegraye/connect-plugin-go/internal/certs"
)

// party is one that has a key and a name.
type party struct {
	name string
	key  crypto.Signer
}

func newParty(t *testing.T, name string, curve elliptic.Curve) party {
	t.Helper()

	key, err := ecdsa.GenerateKey(curve, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}

	return party{name, key}
}

// signs makes a certificate of one party by another one. Alternative names tell one from another.
func (p party) signs(t *testing.T, of party, names ...string) []byte {
	t.Helper()

	serial, err := rand.Int(rand.Reader, big.NewInt(1<<60))
	if err != nil {
		t.Fatal(err)
	}

	made := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: of.name}, BasicConstraintsValid: true, IsCA: of.name != "leaf",
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), DNSNames: names,
	}
	if !made.IsCA {
		made.IPAddresses = []net.IP{net.IPv4(127, 0, 0, 1)}
	}

	der, err := x509.CreateCertificate(rand.Reader, made, &x509.Certificate{Subject: pkix.Name{CommonName: p.name}}, of.key.Public(), p.key)
	if err != nil {
		t.Fatal(err)
	}

	return der
}

// versions is a chain of two intermediates, each in two versions, and the root.
func versions(t *testing.T, leaf, one, two, root party) [][]byte {
	t.Helper()

	one.name, root.name = "one", "root"

	return [][]byte{
		one.signs(t, leaf), two.signs(t, one), two.signs(t, one, "renewed.example"),
		root.signs(t, two), root.signs(t, two, "renewed.example"), root.signs(t, root),
	}
}

// shows makes a handshake in which both sides show a chain and trust a root, and returns what each side says.
func shows(t *testing.T, root []byte, chain *tls.Certificate) (client, server error) {
	t.Helper()

	trusted, err := x509.ParseCertificate(root)
	if err != nil {
		t.Fatal(err)
	}

	pool := x509.NewCertPool()
	pool.AddCert(trusted)

	screened, _ := certs.ScreenClients(&tls.Config{
		MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{*chain}, ClientCAs: pool, ClientAuth: tls.RequireAndVerifyClientCert,
	})
	// Whoever looks is told apart from whoever is looked at.
	plain := &tls.Config{MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{*chain}, InsecureSkipVerify: true}
	// It shows the chain whatever the server trusts.
	plain.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return chain, nil }
	config := &tls.Config{MinVersion: tls.VersionTLS13, ServerName: "127.0.0.1", RootCAs: pool, Certificates: []tls.Certificate{*chain}}

	_, server = agree(t, plain, screened)
	client, _ = agree(t, certs.ScreenServer(config), plain)

	if both, _ := agree(t, certs.ScreenServer(config), screened); client == nil && server == nil && both != nil {
		t.Errorf("both sides verify: %v", both)
	}

	return client, server
}

func agree(t *testing.T, client, server *tls.Config) (ofClient, ofServer error) {
	t.Helper()

	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()

	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}

	defer func() { _ = listener.Close() }()

	a, err := new(net.Dialer).DialContext(ctx, "tcp", listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}

	served := make(chan error, 1)

	go func() {
		b, err := listener.Accept()
		if err == nil {
			err = tls.Server(b, server).HandshakeContext(ctx)
		}

		_ = b.Close()
		served <- err
	}()

	ofClient = tls.Client(a, client).HandshakeContext(ctx)
	_ = a.Close()

	return ofClient, <-served
}

// Chains that are shown in practice are verified, on either side: with intermediates, with a root that another one
// signed across, with the own root, and with keys that are slow.
func TestAudit_H48_HonestChainsAreVerified(t *testing.T) {
	t.Parallel()

	for curve, c := range map[string]elliptic.Curve{"P-256": elliptic.P256(), "P-521": elliptic.P521()} {
		leaf, one, two, three := newParty(t, "leaf", c), newParty(t, "one", c), newParty(t, "two", c), newParty(t, "three", c)
		root, old := newParty(t, "root", c), newParty(t, "old", c)
		self, across := root.signs(t, root), old.signs(t, root)
		certificates := map[string][][]byte{
			"a leaf":                          {root.signs(t, leaf)},
			"an intermediate":                 {one.signs(t, leaf), root.signs(t, one)},
			"three and the root":              {one.signs(t, leaf), two.signs(t, one), three.signs(t, two), root.signs(t, three), self},
			"two and a root signed across":    {one.signs(t, leaf), two.signs(t, one), root.signs(t, two), across},
			"three, the root, and it across":  {one.signs(t, leaf), two.signs(t, one), three.signs(t, two), root.signs(t, three), self, across},
			"one in two versions, and a root": {one.signs(t, leaf), root.signs(t, one), root.signs(t, one, "renewed.example"), self},
		}

		if curve == "P-256" {
			certificates["two of each, and the root"] = versions(t, leaf, one, two, root)
		}

		for name, chain := range certificates {
			shown := &tls.Certificate{Certificate: chain, PrivateKey: leaf.key}
			if client, server := shows(t, self, shown); client != nil || server != nil {
				t.Errorf("%s, %s: %v, %v", curve, name, client, server)
			}
		}

		trusting := &tls.Certificate{Certificate: certificates["two and a root signed across"], PrivateKey: leaf.key}
		if client, server := shows(t, old.signs(t, old), trusting); client != nil || server != nil {
			t.Errorf("%s, by the old root: %v, %v", curve, client, server)
		}
	}
}

// A chain of which each may have issued each takes many signatures to verify: it is refused before the first, and what
// is said tells why.
func TestAudit_H48_ChainsThatManyCouldHaveIssuedAreRefused(t *testing.T) {
	t.Parallel()

	leaf, issuer := newParty(t, "leaf", elliptic.P256()), newParty(t, "issuer", elliptic.P256())
	slow := newParty(t, "issuer", elliptic.P521())
	self := issuer.signs(t, issuer)

	key, err := rsa.GenerateKey(rand.Reader, 4097)
	if err != nil {
		t.Fatal(err)
	}

	large := party{"issuer", key}

	// each returns a leaf and so many that could have issued it and, where they are of one key, one another.
	each := func(n int, by party, of func() party) (chain [][]byte) {
		chain = [][]byte{by.signs(t, leaf)}
		for i := range n {
			chain = append(chain, by.signs(t, of(), fmt.Sprintf("n%d.example", i)))
		}

		return chain
	}
	fixed := func(p party) func() party { return func() party { return p } }
	fresh := func() party { return newParty(t, "issuer", elliptic.P256()) }

	for name, chain := range map[string][][]byte{
		"nine of one key":                   each(9, issuer, fixed(issuer)),
		"three of one key":                  each(3, issuer, fixed(issuer)),
		"nine of keys of their own":         each(9, issuer, fresh),
		"two of each, of slow keys":         versions(t, leaf, slow, newParty(t, "two", elliptic.P521()), slow),
		"two of each, of large keys":        versions(t, leaf, large, party{"two", key}, large),
		"one without a name, and two of it": append([][]byte{issuer.signs(t, leaf), issuer.signs(t, issuer)}, each(1, issuer, fixed(issuer))[1:]...),
	} {
		client, server := shows(t, self, &tls.Certificate{Certificate: chain, PrivateKey: leaf.key})
		for side, err := range map[string]error{"client": client, "server": server} {
			if !errors.Is(err, certs.ErrChain) || !strings.Contains(err.Error(), "more than 12 signatures") {
				t.Errorf("%s, the %s: %v", name, side, err)
			}
		}
	}
}
