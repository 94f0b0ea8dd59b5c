package watch_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net/http"
	"runtime"
	"strings"
	"testing"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	connectplugin "github.com/masegraye/connect-plugin-go"
	connectpluginv1 "github.com/masegraye/connect-plugin-go/gen/plugin/v1"
	"github.com/masegraye/connect-plugin-go/gen/plugin/v1/connectpluginv1connect"
	"github.com/masegraye/connect-plugin-go/internal/hosttest"
)

// goroutinesOf counts the goroutines that have a function on their stacks.
func goroutinesOf(function string) int {
	room := make([]byte, 1<<20)
	for {
		n := runtime.Stack(room, true)
		if n < len(room) {
			return strings.Count(string(room[:n]), function)
		}
		room = make([]byte, 2*len(room))
	}
}

// A watch at rest takes no goroutine: not that of a handler and none that waits for it. It does not run in
// parallel: it counts the goroutines of the process.
func TestWatch_AtRestTakesNoGoroutine(t *testing.T) {
	host, f := watchHost(t, nil)
	c := host.Enrol(t, "c", hosttest.Requiring("a"))
	watching := make([]*hosttest.Watching, 50)
	for i := range watching {
		watching[i] = hosttest.Watch(t, c, host.URL, &connectpluginv1.WatchServiceRequest{ServiceType: "a"})
		watching[i].Next(t)
	}
	f.flap(1)
	for _, w := range watching {
		w.Next(t)
	}
	if n := goroutinesOf("catalog.(*Watcher).Await("); n > 0 { // as no watch at rest ever does
		t.Fatalf("%d goroutines wait for events", n)
	}
	handlers := 1
	hosttest.Eventually(t, "no goroutine is left", func() bool {
		handlers = goroutinesOf("ServiceRegistry).WatchService(") + goroutinesOf("h2serve.(*stream).serve(") + goroutinesOf("herald.(*Herald).work(")
		return handlers == 0
	})
	if n := host.Usage().Watches; n != len(watching) {
		t.Errorf("%d watches are open", n)
	}
	for _, w := range watching {
		w.Cancel()
	}
	hosttest.Eventually(t, "nothing is open", func() bool { u := host.Usage(); return u.Watches == 0 && u.Calls == 0 })
}

// form is how a client asks for a watch.
type form struct {
	contentType string
	fields      map[string]string
	refused     bool
}

const (
	connectTimeout = "Connect-Timeout-Ms"
	grpcTimeout    = "Grpc-Timeout"
)

var (
	forms = map[string]form{
		"connect":             {"application/connect+proto", nil, false},
		"connect, gzip":       {"application/connect+proto", map[string]string{"Connect-Accept-Encoding": "gzip"}, false},
		"connect, json, gzip": {"application/connect+json", map[string]string{"Connect-Accept-Encoding": "br, gzip"}, false},
		"grpc":                {"application/grpc", nil, false},
		"grpc, gzip":          {"application/grpc+proto", map[string]string{"Grpc-Accept-Encoding": "gzip"}, false},
		"grpc, json":          {"application/grpc+json", map[string]string{"Grpc-Accept-Encoding": "identity"}, false},
		"grpc-web":            {"application/grpc-web", nil, false},
		"grpc-web, gzip":      {"application/grpc-web+proto", map[string]string{"Grpc-Accept-Encoding": "gzip"}, false},
		"another encoding":    {"application/connect+proto", map[string]string{"Connect-Content-Encoding": "br"}, true},
		"another type":        {"application/xml", nil, true},
	}
	deadlines = map[string]form{
		"connect":        {"application/connect+proto", map[string]string{connectTimeout: "50"}, false},
		"grpc":           {"application/grpc", map[string]string{grpcTimeout: "50m"}, false},
		"grpc-web":       {"application/grpc-web", map[string]string{grpcTimeout: "50m"}, false},
		"none left":      {"application/grpc", map[string]string{grpcTimeout: "0n"}, false},
		"no number":      {"application/connect+proto", map[string]string{connectTimeout: "soon"}, true},
		"grpc, too long": {"application/grpc", map[string]string{grpcTimeout: "1234567890H"}, true},
	}
)

// asked is a watch, and what was answered so far.
type asked struct {
	form form
	resp *http.Response
	text strings.Builder
}

// ask opens a watch in a form.
func ask(t *testing.T, host *hosttest.Host, c *connectplugin.Client, f form, watched string) *asked {
	t.Helper()
	message := append([]byte{1<<3 | 2, byte(len(watched))}, watched...)
	if strings.Contains(f.contentType, "json") {
		message = fmt.Appendf(nil, `{"serviceType":%q}`, watched)
	}
	body := append([]byte{0, 0, 0, 0, byte(len(message))}, message...)
	ctx, cancel := context.WithTimeout(t.Context(), hosttest.Wait)
	t.Cleanup(cancel)
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, host.URL+connectpluginv1connect.ServiceRegistryWatchServiceProcedure, bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	r.Header = hosttest.IdentityHeader(c.RuntimeID(), c.RuntimeToken())
	r.Header.Set("Content-Type", f.contentType)
	for name, value := range f.fields {
		r.Header.Set(name, value)
	}
	resp, err := c.HTTPClient().Do(r)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = resp.Body.Close() })
	resp.Header.Del("Date")
	a := &asked{form: f, resp: resp}
	_, _ = fmt.Fprintln(&a.text, resp.StatusCode, resp.Header)
	return a
}

// message takes down the next message, without what is another in each host, and reports whether
// there was one.
func (a *asked) message(t *testing.T) bool {
	t.Helper()
	head := make([]byte, 5)
	switch _, err := io.ReadFull(a.resp.Body, head); {
	case err == io.EOF:
		return false
	case err != nil:
		t.Errorf("the answer ends with %v", err)
		return false
	}
	body := make([]byte, binary.BigEndian.Uint32(head[1:]))
	if _, err := io.ReadFull(a.resp.Body, body); err != nil {
		t.Fatal(err)
	}
	_, _ = fmt.Fprintln(&a.text, "flags", head[0])
	if head[0]&1 != 0 {
		r, err := gzip.NewReader(bytes.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		if body, err = io.ReadAll(r); err != nil {
			t.Fatal(err)
		}
	}
	if head[0] > 1 {
		a.text.Write(body)
		return true
	}
	m, parse := &connectpluginv1.WatchServiceEvent{}, proto.Unmarshal
	if strings.Contains(a.form.contentType, "json") {
		parse = protojson.Unmarshal
	}
	if err := parse(body, m); err != nil || m.GetEpoch() == "" {
		t.Fatalf("%v: %q", err, body)
	}
	m.Epoch, m.Endpoint.ProviderId, m.Endpoint.EndpointUrl = "", "", ""
	text, _ := proto.MarshalOptions{Deterministic: true}.Marshal(m)
	_, _ = fmt.Fprintf(&a.text, "%q\n", text)
	return true
}

// end takes down the rest.
func (a *asked) end(t *testing.T) string {
	t.Helper()
	if a.form.refused {
		rest, err := io.ReadAll(a.resp.Body)
		_, _ = fmt.Fprintf(&a.text, "%q %v", rest, err)
	} else {
		for a.message(t) {
		}
	}
	_, _ = fmt.Fprintln(&a.text, a.resp.Trailer)
	return a.text.String()
}

// story is what happens to a host with a watch, up to its end.
type story struct {
	watched string
	events  bool
	happens func(host *hosttest.Host, c *connectplugin.Client)
}

var stories = map[string]story{
	"shutdown": {"a", true, func(host *hosttest.Host, _ *connectplugin.Client) {
		go func() { _ = host.Shutdown(context.Background()) }()
	}},
	"revoked":   {"a", true, func(host *hosttest.Host, c *connectplugin.Client) { host.Revoke(c.RuntimeID()) }},
	"forbidden": {"b", false, func(*hosttest.Host, *connectplugin.Client) {}},
	"no type":   {"-", false, func(*hosttest.Host, *connectplugin.Client) {}},
	"withdrawn": {"a", true, func(host *hosttest.Host, _ *connectplugin.Client) {
		_ = host.SetPolicy(hosttest.Rights(map[string][2][]string{"p": {{"a"}, nil}, "c": {nil, {"b"}}}))
	}},
}

// tell has a story happen to a host with a watch in each form, and returns what was answered.
func (s *story) tell(t *testing.T, edit func(*connectplugin.ServeConfig)) map[string]string {
	t.Helper()
	host, flapper := watchHost(t, edit)
	_, err := host.Registry().RegisterService(t.Context(), hosttest.InProcess(flapper.id, &connectpluginv1.RegisterServiceRequest{
		ServiceType: "a", Version: "1.0.0", Metadata: map[string]string{"padding": strings.Repeat("x", 2*connectplugin.CompressMinBytes)},
	}))
	if err != nil {
		t.Fatal(err)
	}
	c := host.Enrol(t, "c", hosttest.Requiring("a"))
	all, out := map[string]*asked{}, map[string]string{}
	for name, f := range forms {
		all[name] = ask(t, host, c, f, s.watched)
	}
	for i := range 3 {
		if i > 0 && s.events {
			flapper.flap(1)
		}
		for name, a := range all {
			if s.events && !a.form.refused && !a.message(t) {
				t.Fatalf("%s: it ended", name)
			}
		}
	}
	s.happens(host, c)
	for name, a := range all {
		out[name] = a.end(t)
	}
	return out
}

// attended has the watches of a host have a goroutine each, or not: an interceptor of the operator's may want to
// be around them.
func attended(waits bool) func(*connectplugin.ServeConfig) {
	return func(c *connectplugin.ServeConfig) {
		if waits {
			c.Interceptors = []connect.Interceptor{connect.UnaryInterceptorFunc(func(next connect.UnaryFunc) connect.UnaryFunc { return next })}
		}
	}
}

// What a watch that rests is answered is what Connect would have written: its head, messages, end and
// trailer, in each protocol, whatever happens to it.
func TestWatch_AtRestAnswersAsConnectDoes(t *testing.T) {
	t.Parallel()
	for name, s := range stories {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			resting, waiting := s.tell(t, attended(false)), s.tell(t, attended(true))
			for form, want := range waiting {
				if compressed := strings.Contains(want, "flags 1\n"); compressed != (s.events && strings.Contains(form, "gzip")) {
					t.Errorf("%s: compressed %t", form, compressed)
				}
				if got := resting[form]; got != want {
					t.Errorf("%s:\n%s\nwant\n%s", form, got, want)
				}
			}
		})
	}
}

// The deadline of a client ends its watch, with the error for it; one that is none is refused.
func TestWatch_AtRestHasADeadline(t *testing.T) {
	t.Parallel()
	ends := map[bool]map[string]string{}
	for _, waits := range []bool{false, true} {
		host, _ := watchHost(t, attended(waits))
		c := host.Enrol(t, "c", hosttest.Requiring("a"))
		ends[waits] = map[string]string{}
		for name, f := range deadlines {
			answer := ask(t, host, c, f, "a").end(t)
			_, end, _ := strings.Cut(answer, "\n")
			if at := strings.LastIndex(end, "flags 0\n"); at >= 0 { // whether an event came before is a matter of time
				_, end, _ = strings.Cut(end[at+len("flags 0\n"):], "\n")
			}
			ends[waits][name] = end
		}
	}
	for name, want := range ends[true] {
		if got := ends[false][name]; got != want || !deadlines[name].refused && !strings.Contains(strings.ToLower(want), "deadline") {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
}
