package transcript_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"math/big"
	"net"
	"testing"

	"github.com/masegraye/connect-plugin-go/internal/transcript"
)

func TestChannelBinding_BothEndsOfOneConnectionAgree(t *testing.T) {
	t.Parallel()
	client1, server1 := connect(t)
	client2, server2 := connect(t)
	b := make([][]byte, 0, 4)
	for _, state := range []tls.ConnectionState{client1, server1, client2, server2} {
		v, err := transcript.ChannelBinding(&state)
		if err != nil {
			t.Fatal(err)
		}
		if len(v) != transcript.BindingSize {
			t.Fatalf("binding has %d bytes", len(v))
		}
		b = append(b, v)
	}
	if !bytes.Equal(b[0], b[1]) || !bytes.Equal(b[2], b[3]) {
		t.Error("the ends of a connection disagree")
	}
	// What a man in the middle with two connections sees.
	if bytes.Equal(b[0], b[2]) {
		t.Error("two connections have the same binding")
	}
}

func TestChannelBinding_NoConnection(t *testing.T) {
	t.Parallel()
	for name, state := range map[string]*tls.ConnectionState{"nil": nil, "no handshake": {}} {
		if _, err := transcript.ChannelBinding(state); !errors.Is(err, transcript.ErrNoBinding) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func connect(t *testing.T) (client, server tls.ConnectionState) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{SerialNumber: big.NewInt(1)},
		&x509.Certificate{SerialNumber: big.NewInt(1)}, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	cn, sn := net.Pipe()
	defer cn.Close()
	defer sn.Close()
	s := tls.Server(sn, &tls.Config{
		MinVersion:             tls.VersionTLS13,
		Certificates:           []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}},
		SessionTicketsDisabled: true,
	})
	c := tls.Client(cn, &tls.Config{MinVersion: tls.VersionTLS13, InsecureSkipVerify: true})
	done := make(chan error, 1)
	go func() { done <- s.HandshakeContext(t.Context()) }()
	if err := errors.Join(c.HandshakeContext(t.Context()), <-done); err != nil {
		t.Fatal(err)
	}
	return c.ConnectionState(), s.ConnectionState()
}
