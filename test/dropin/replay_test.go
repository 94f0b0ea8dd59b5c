package dropin_test

import (
	"bytes"
	"encoding/binary"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	connectplugin "github.com/masegraye/connect-plugin-go"
	"github.com/masegraye/connect-plugin-go/gen/capability/logger/v1/loggerv1connect"
	"github.com/masegraye/connect-plugin-go/internal/hosttest"
)

// A plugin of the first version sends what it always did, in both codecs, over HTTP/1.1 and HTTP/2, and a host of
// today answers what it understands.
func TestReplay_ToHost(t *testing.T) {
	t.Parallel()
	for name, client := range map[string]*http.Client{"HTTP/1.1": plain(t, false), "HTTP/2": plain(t, true)} {
		for _, codec := range []string{"json", "proto"} {
			t.Run(name+" "+codec, func(t *testing.T) {
				t.Parallel()
				granted, routed := &hosttest.RecordingLogger{}, &hosttest.RecordingLogger{}
				broker := connectplugin.NewCapabilityBroker("")
				broker.RegisterCapability(hosttest.LoggerCapability(granted))
				host := hosttest.Start(t, func(c *connectplugin.ServeConfig) {
					c.Authority, c.AllowInsecure, c.Policy, c.CapabilityBroker = nil, true, connectplugin.OpenPolicy(), broker
				})
				mux := http.NewServeMux()
				mux.Handle(loggerv1connect.NewLoggerHandler(routed))
				plugin := httptest.NewServer(mux)
				t.Cleanup(plugin.Close)

				r := &replay{codec: codec, host: host.URL, client: client, known: known{"PLUGIN": plugin.URL}}
				for _, e := range recordings(t, "to_host.txt") {
					r.play(t, e)
				}
				for message, l := range map[string]*hosttest.RecordingLogger{"granted": granted, "routed": routed} {
					if got, _, _ := l.Got(); len(got) != 1 || !strings.Contains(got[0], message) {
						t.Errorf("%s: the logger got %q", message, got)
					}
				}
			})
		}
	}
}

// plain returns a client that speaks plaintext, in one version of HTTP.
func plain(t *testing.T, http2 bool) *http.Client {
	t.Helper()
	protocols := new(http.Protocols)
	protocols.SetHTTP1(!http2)
	protocols.SetUnencryptedHTTP2(http2)
	transport := &http.Transport{Protocols: protocols}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport}
}

// replay plays the part of a plugin.
type replay struct {
	codec, host string
	client      *http.Client
	known       known
}

func (r *replay) play(t *testing.T, e exchange) {
	t.Helper()
	body := []byte(r.known.fill(e.fields["json"]))
	if r.codec == "proto" {
		body = bytesOf(t, r.known.fill(e.fields["proto"]))
	}
	contentType := "application/" + r.codec
	if e.stream {
		contentType = "application/connect+" + r.codec
		body = enveloped(0, body)
	}
	at := r.known.fill(e.fields["at"])
	if !strings.HasPrefix(at, "http") {
		at = r.host + at
	}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, at+"/"+e.rpc, bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", contentType)
	req.Header.Set("Connect-Protocol-Version", "1")
	req.Header.Set("User-Agent", "connect-go/1.18.1 (go1.24.0)")
	if e.fields["bearer"] != "" {
		req.Header.Set("Authorization", "Bearer "+r.known.fill(e.fields["bearer"]))
	} else if r.known["TOKEN"] != "" {
		req.Header.Set("X-Plugin-Runtime-Id", r.known["RUNTIME"])
		req.Header.Set("Authorization", "Bearer "+r.known["TOKEN"])
	}
	resp, err := r.client.Do(req)
	if err != nil {
		t.Fatal(e.rpc, err)
	}
	defer resp.Body.Close()
	answer := readAnswer(t, resp.Body, e.stream)
	if resp.StatusCode != http.StatusOK || resp.Header.Get("Content-Type") != contentType {
		t.Fatalf("%s: %s %s: %q", e.rpc, resp.Status, resp.Header.Get("Content-Type"), answer)
	}
	got := understood(t, method(t, firstVersion(t), e.rpc).Output(), r.codec, answer)
	if want := object(t, e.fields["says"]); !r.known.learn(want, got) {
		t.Errorf("%s: the host says %v, want %v", e.rpc, got, want)
	}
}

// readAnswer reads an answer, or the first message of a stream.
func readAnswer(t *testing.T, body io.Reader, stream bool) []byte {
	t.Helper()
	if stream {
		head := make([]byte, 5)
		if _, err := io.ReadFull(body, head); err != nil || head[0] != 0 {
			t.Fatalf("envelope %v: %v", head, err)
		}
		body = io.LimitReader(body, int64(binary.BigEndian.Uint32(head[1:])))
	}
	raw, err := io.ReadAll(body)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}
