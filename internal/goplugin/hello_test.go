package goplugin_test

import (
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/masegraye/connect-plugin-go/internal/goplugin"
)

// certificate is that of a plugin, as it prints it.
func certificate(t testing.TB) string {
	t.Helper()
	id, err := goplugin.NewIdentity(time.Now())
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range (goplugin.Offer{}).Environment(id) {
		if text, ok := strings.CutPrefix(line, "PLUGIN_CLIENT_CERT="); ok {
			block, _ := pem.Decode([]byte(text))
			return base64.RawStdEncoding.EncodeToString(block.Bytes)
		}
	}
	t.Fatal("no certificate in the environment")
	return ""
}

func TestParseHello(t *testing.T) {
	t.Parallel()
	const dir = "/tmp/private"
	cert := certificate(t)
	for line, want := range map[string]string{
		"1|2|unix|/tmp/private/plugin1|grpc|" + cert:           "",
		"1|2|unix|/tmp/private/plugin1|grpc|" + cert + "|true": "",
		" 1|2|unix|/tmp/private/plugin1|grpc|" + cert + " ":    "",
		"":            "none of go-plugin: is it a plugin",
		"hello world": "none of go-plugin: is it a plugin",
		"2|2|unix|/tmp/private/plugin1|grpc|" + cert:          "none of go-plugin: is it a plugin",
		"1|2|unix|/tmp/private/plugin1|grpc|" + cert + "|x|y": "none of go-plugin: is it a plugin",
		"1|x|unix|/tmp/private/plugin1|grpc|" + cert:          "no number",
		"1|3|unix|/tmp/private/plugin1|grpc|" + cert:          "it speaks version 3 of its own protocol, and PluginSpec.GoPlugin.Versions offers [1 2]: write 3 there",
		"1|2|tcp|127.0.0.1:1234|grpc|" + cert:                 "instead of a Unix socket",
		"1|2|unix|/tmp/plugin1|grpc|" + cert:                  "not in the directory",
		"1|2|unix|/tmp/private/../x|grpc|" + cert:             "not in the directory",
		"1|2|unix|/tmp/private/a/b|grpc|" + cert:              "not in the directory",
		"1|2|unix|@abstract|grpc|" + cert:                     "not in the directory",
		"1|2|unix||grpc|" + cert:                              "not in the directory",
		"1|2|unix|/tmp/private/plugin1":                       "does not serve gRPC",
		"1|2|unix|/tmp/private/plugin1|netrpc|" + cert:        "does not serve gRPC",
		"1|2|unix|/tmp/private/plugin1|grpc":                  "in plaintext",
		"1|2|unix|/tmp/private/plugin1|grpc|":                 "in plaintext",
		"1|2|unix|/tmp/private/plugin1|grpc||true":            "in plaintext",
		"1|2|unix|/tmp/private/plugin1|grpc|%%":               "no base64",
		"1|2|unix|/tmp/private/plugin1|grpc|aGVsbG8":          "cannot be read",
		"1|2|unix|/tmp/private/plugin1|grpc|" + cert[:40]:     "cannot be read",
	} {
		h, err := goplugin.ParseHello(line, dir, []int{1, 2})
		switch {
		case want == "" && err != nil:
			t.Errorf("%.60q: %v", line, err)
		case want == "" && (h.Version != 2 || h.Socket != dir+"/plugin1" || h.Certificate.Subject.CommonName != "localhost"):
			t.Errorf("%.60q: %+v", line, h)
		case want != "" && (!errors.Is(err, goplugin.ErrHello) || !strings.Contains(err.Error(), want)):
			t.Errorf("%.60q: %v, want %q", line, err, want)
		}
	}
}

func FuzzParseHello(f *testing.F) {
	cert := certificate(f)
	f.Add("1|1|unix|/tmp/private/plugin1|grpc|" + cert)
	f.Add("1|1|unix|/tmp/private/plugin1|grpc|" + cert + "|true")
	f.Add("1|1|tcp|127.0.0.1:1|netrpc")
	f.Add("||||||")
	f.Fuzz(func(t *testing.T, line string) {
		h, err := goplugin.ParseHello(line, "/tmp/private", []int{1})
		if err != nil && (h != nil || !errors.Is(err, goplugin.ErrHello)) {
			t.Errorf("%v, %v", h, err)
		}
		if err == nil && (h.Certificate == nil || !strings.HasPrefix(h.Socket, "/tmp/private/")) {
			t.Errorf("%+v", h)
		}
	})
}

// The certificate is for one launch: a client's and a server's, with a P-256 key, and its own root.
func TestIdentity(t *testing.T) {
	t.Parallel()
	der, err := base64.RawStdEncoding.DecodeString(certificate(t))
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(cert)
	if _, err := cert.Verify(x509.VerifyOptions{Roots: roots, DNSName: "localhost", KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}); err != nil {
		t.Error(err)
	}
	if one, other := certificate(t), certificate(t); one == other {
		t.Error("two launches have the same certificate")
	}
}
