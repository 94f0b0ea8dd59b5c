package goplugin_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/masegraye/connect-plugin-go/internal/goplugin"
)

// fakePlugin serves what a plugin answers, over mutual TLS on a Unix socket. It shows served
// and says that it shows said.
func fakePlugin(t *testing.T, answer http.HandlerFunc, served, said *goplugin.Identity) *goplugin.Control {
	t.Helper()
	dir, err := os.MkdirTemp("/tmp", "goplugin") //nolint:usetesting // a socket needs a short name
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	host := newIdentity(t)
	l, err := new(net.ListenConfig).Listen(t.Context(), "unix", filepath.Join(dir, "plugin"))
	if err != nil {
		t.Fatal(err)
	}
	clients := x509.NewCertPool()
	clients.AddCert(certificateOf(t, host))
	var protocols http.Protocols
	protocols.SetHTTP2(true)
	server := &http.Server{Handler: answer, ReadHeaderTimeout: time.Minute, ErrorLog: log.New(io.Discard, "", 0), Protocols: &protocols, TLSConfig: &tls.Config{
		Certificates: served.TLS(&goplugin.Hello{Certificate: certificateOf(t, host)}).Certificates,
		ClientCAs:    clients, ClientAuth: tls.RequireAndVerifyClientCert, MinVersion: tls.VersionTLS13,
	}}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = server.ServeTLS(l, "", "")
	}()
	t.Cleanup(func() {
		_ = server.Close()
		<-done
	})
	hello := &goplugin.Hello{Socket: l.Addr().String(), Certificate: certificateOf(t, said)}
	c := goplugin.NewControl(hello, host.TLS(hello))
	t.Cleanup(c.Close)
	return c
}

func newIdentity(t *testing.T) *goplugin.Identity {
	t.Helper()
	id, err := goplugin.NewIdentity(time.Now())
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func certificateOf(t *testing.T, id *goplugin.Identity) *x509.Certificate {
	t.Helper()
	for _, line := range (goplugin.Offer{}).Environment(id) {
		if text, ok := strings.CutPrefix(line, "PLUGIN_CLIENT_CERT="); ok {
			block, _ := pem.Decode([]byte(text))
			cert, err := x509.ParseCertificate(block.Bytes)
			if err != nil {
				t.Fatal(err)
			}
			return cert
		}
	}
	t.Fatal("no certificate")
	return nil
}

// say answers with a status and what is before it.
func say(status string, frames ...string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/grpc")
		w.Header().Set("Trailer", "Grpc-Status")
		if r.Header.Get("Content-Type") != "application/grpc" || r.Header.Get("Te") != "trailers" {
			status = "3"
		}
		for _, f := range frames {
			_, _ = w.Write([]byte(f))
		}
		w.Header().Set("Grpc-Status", status)
	}
}

func TestHealth(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		answer http.HandlerFunc
		want   string
	}{
		"serving":      {say("0", "\x00\x00\x00\x00\x02\x08\x01"), ""},
		"not serving":  {say("0", "\x00\x00\x00\x00\x02\x08\x02"), "does not serve"},
		"says nothing": {say("0", "\x00\x00\x00\x00\x00"), "does not serve"},
		"an error":     {say("14"), "status"},
		"no service":   {say("12"), "does not have the service"},
		"half":         {say("0", "\x00\x00\x00\x00\x09\x08"), "cut short"},
		"compressed":   {say("0", "\x01\x00\x00\x00\x02\x08\x01"), "compressed"},
		"huge":         {say("0", "\x00\xff\xff\xff\xff"), "bytes"},
		"no protobuf":  {say("0", "\x00\x00\x00\x00\x02\xff\xff"), "not understood"},
		"no gRPC":      {func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusTeapot) }, "418"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			id := newIdentity(t)
			err := fakePlugin(t, c.answer, id, id).Health(t.Context())
			if (c.want == "") != (err == nil) || err != nil && !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v, want %q", err, c.want)
			}
		})
	}
}

// Somebody else at the socket is not taken for the plugin, and the other way round.
func TestControlKnowsThePlugin(t *testing.T) {
	t.Parallel()
	if err := fakePlugin(t, say("0", "\x00\x00\x00\x00\x02\x08\x01"), newIdentity(t), newIdentity(t)).Health(t.Context()); err == nil {
		t.Error("another certificate is accepted")
	}
}

func TestOutput(t *testing.T) {
	t.Parallel()
	id := newIdentity(t)
	c := fakePlugin(t, say("0", "\x00\x00\x00\x00\x06\x08\x01\x12\x02hi", "\x00\x00\x00\x00\x06\x08\x02\x12\x02oh", "\x00\x00\x00\x00\x01\xff"), id, id)
	var got []string
	err := c.Output(t.Context(), func(stderr bool, data []byte) {
		if stderr {
			got = append(got, "stderr")
		}
		if len(data) > 0 {
			got = append(got, string(data))
		}
	})
	if want := []string{"hi", "stderr", "oh"}; !slices.Equal(got, want) || err != nil {
		t.Errorf("%q, %v", got, err)
	}
}

// A call that the plugin never answers ends with its context.
func TestControlEndsWithTheContext(t *testing.T) {
	t.Parallel()
	id := newIdentity(t)
	c := fakePlugin(t, func(w http.ResponseWriter, r *http.Request) {
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
	}, id, id)
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(10*time.Millisecond, cancel)
	if err := c.Output(ctx, func(bool, []byte) {}); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
}
