package edge_test

import (
	"context"
	"io"
	"log/slog"
	"net/http"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"

	connectplugin "github.com/masegraye/connect-plugin-go"
	"github.com/masegraye/connect-plugin-go/internal/hosttest"
	"github.com/masegraye/connect-plugin-go/internal/hosttest/echo"
)

// fieldsAsked and trailersAsked say how many fields an answer is to have.
const (
	fieldsAsked   = "X-Fields"
	trailersAsked = "X-Trailers"
)

// answersFields is a provider whose answers have as many header fields, and as many in their trailers, as the caller asks for. One
// that has no trailer goes on until nobody wants it any more.
func answersFields(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", r.Header.Get("Content-Type"))
	for i := range count(r, fieldsAsked) {
		w.Header().Set("X-Field-"+strconv.Itoa(i), "")
	}
	w.WriteHeader(http.StatusOK)
	_ = http.NewResponseController(w).Flush()
	trailers := count(r, trailersAsked)
	for i := range trailers {
		w.Header().Set(http.TrailerPrefix+"X-Trailer-"+strconv.Itoa(i), "")
	}
	if trailers == 0 {
		<-r.Context().Done()
		return
	}
	w.Header().Set(http.TrailerPrefix+"Grpc-Status", "0")
}

func count(r *http.Request, field string) int {
	n, _ := strconv.Atoi(r.Header.Get(field))
	return n
}

// askFor begins a call whose answer has so many fields, and so many in its trailer, and returns its answer.
func askFor(t *testing.T, to echo.Endpoint, content string, fields, trailers int) (resp *http.Response, end func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	t.Cleanup(cancel)
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, to.Base+echo.Unary, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Content-Type", content)
	r.Header.Set(fieldsAsked, strconv.Itoa(fields))
	r.Header.Set(trailersAsked, strconv.Itoa(trailers))
	resp, err = to.Client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	return resp, func() { cancel(); _ = resp.Body.Close() }
}

// begun counts the fields with a prefix.
func begun(header http.Header, prefix string) (n int) {
	for name := range header {
		if strings.HasPrefix(name, prefix) {
			n++
		}
	}
	return n
}

// An answer has some 1,000 fields in its headers and its trailer together. One with more is resource_exhausted, and the log names the
// plugin and says what for.
func TestAudit_H48_AnAnswerWithTooManyFieldsSaysSo(t *testing.T) {
	t.Parallel()
	var log hosttest.Buffer
	rig := echo.NewRig(t, http.HandlerFunc(answersFields), func(c *connectplugin.ServeConfig) {
		c.Logger = slog.New(slog.NewTextHandler(&log, nil))
	})
	for _, tt := range []struct{ fields, trailers int }{{900, 90}, {90, 900}, {1_001, 1}, {500, 501}} {
		fits := tt.fields+tt.trailers < 1_000
		resp, end := askFor(t, rig.ToProvider(), "application/grpc", tt.fields, tt.trailers)
		_, err := io.Copy(io.Discard, resp.Body)
		status := resp.Trailer.Get("Grpc-Status") + resp.Header.Get("Grpc-Status")
		if fits && (err != nil || status != "0" || begun(resp.Header, "X-Field-") != tt.fields || begun(resp.Trailer, "X-Trailer-") != tt.trailers) {
			t.Errorf("%v: status %s, %d fields and %d in the trailer, %v", tt, status, len(resp.Header), len(resp.Trailer), err)
		}
		if !fits && status != strconv.Itoa(int(connect.CodeResourceExhausted)) {
			t.Errorf("%v: status %q, %v", tt, status, err)
		}
		end()
	}
	for line := range strings.SplitSeq(log.String(), "\n") {
		if strings.Contains(line, "a routed call failed") && strings.Contains(line, "self_id=provider ") && strings.Contains(line, "more than 1000 header fields") {
			return
		}
	}
	t.Errorf("the log does not say so: %s", log.String())
}

// A call whose answer has a large head counts as several of those that its caller may have open, until it ends.
func TestAudit_ATK14_OpenCallsOfLargeAnswers(t *testing.T) {
	t.Parallel()
	const (
		calls  = 12 // for two of five each, one of one, and one more
		fields = 500
	)
	rig := echo.NewRig(t, http.HandlerFunc(answersFields), func(c *connectplugin.ServeConfig) { c.Limits.MaxOpenCallsPerIdentity = calls })
	const content = "application/connect+proto"
	var open []func()
	for i, tt := range []struct {
		fields int
		room   bool
	}{{fields, true}, {fields, true}, {fields, false}, {1, true}, {fields, false}} {
		resp, end := askFor(t, rig.ToProvider(), content, tt.fields, 0)
		if room := begun(resp.Header, "X-Field-") == tt.fields; room != tt.room {
			t.Errorf("call %d: room %t, want %t", i+1, room, tt.room)
		} else if !room {
			body, _ := io.ReadAll(resp.Body)
			if !strings.Contains(string(body), "resource_exhausted") || !strings.Contains(string(body), "calls") {
				t.Errorf("call %d: %s", i+1, body)
			}
		}
		open = append(open, end)
	}
	var events []connectplugin.AuditEvent
	hosttest.Eventually(t, "the audit has the first", func() bool {
		events, _ = limitedOf(rig.Host, "(Limits.MaxOpenCallsPerIdentity)")
		return len(events) > 0
	})
	if events[0].SelfID != "caller" || events[0].Peer != "127.0.0.1" || !strings.HasSuffix(events[0].Procedure, echo.Unary) {
		t.Errorf("the audit has %v", events)
	}
	for _, end := range open {
		end()
	}
	hosttest.Eventually(t, "each is given back", func() bool { return rig.Usage().Calls == 0 })
	for range calls {
		if resp, _ := askFor(t, rig.ToProvider(), content, 1, 0); begun(resp.Header, "X-Field-") != 1 {
			t.Errorf("no room for another one: %v", resp.Header)
		}
	}
}

// A provider that answers with many fields waits its turn, on however many connections it does, and its callers with it.
func TestAudit_H48_AProviderOfManyFieldsWaitsItsTurn(t *testing.T) {
	t.Parallel()
	const (
		fields, usual = 900, 64
		field         = 50 * time.Microsecond // of one processor
		free          = 16 * time.Millisecond
	)
	calls := 10 * runtime.GOMAXPROCS(0)
	rig := echo.NewRig(t, http.HandlerFunc(answersFields), nil)
	begun := time.Now()
	for range calls {
		resp, end := askFor(t, rig.ToProvider(), "application/grpc", fields, 1)
		_, _ = io.Copy(io.Discard, resp.Body)
		end()
	}
	// The last one waits for those before it, and nobody for the last.
	if took, least := time.Since(begun), time.Duration((calls-1)*(fields-usual))*field/time.Duration(runtime.GOMAXPROCS(0))-free; took < least {
		t.Errorf("%d answers took %v, want %v at least", calls, took, least)
	}
}

// So do all instances of a plugin that proved which it is: the answers of one wait for those of another.
func TestAudit_H48_InstancesOfManyFieldsWaitForOneAnother(t *testing.T) {
	t.Parallel()
	const (
		fields, usual = 900, 64
		field         = 50 * time.Microsecond // of one processor
		free          = 16 * time.Millisecond
	)
	calls := 10 * runtime.GOMAXPROCS(0)
	rig := echo.NewRig(t, http.HandlerFunc(answersFields), nil)
	instances := []echo.Endpoint{rig.ToProvider()}
	for range 5 {
		instances = append(instances, rig.Route(rig.Provide(t, "provider", http.HandlerFunc(answersFields), nil).Client.RuntimeID()))
	}
	begun := time.Now()
	for i := range calls {
		resp, end := askFor(t, instances[i%len(instances)], "application/grpc", fields, 1)
		_, _ = io.Copy(io.Discard, resp.Body)
		end()
	}
	// The last one waits for those before it, and nobody for the last.
	if took, least := time.Since(begun), time.Duration((calls-1)*(fields-usual))*field/time.Duration(runtime.GOMAXPROCS(0))-free; took < least {
		t.Errorf("%d answers took %v, want %v at least", calls, took, least)
	}
}

// A client takes as many fields of an answer as a host, and says so of one that has more.
func TestAudit_H48_AClientSaysOfTooManyFields(t *testing.T) {
	t.Parallel()
	host := hosttest.StartHostileHost(t, nil)
	host.AnswerMessage(hosttest.HandshakePath, hosttest.Welcome(nil))
	host.Answer(echo.Unary, func(w http.ResponseWriter, _ *http.Request) {
		for i := range 1_001 {
			w.Header().Set("X-Field-"+strconv.Itoa(i), "")
		}
	})
	c := host.Client(t, nil)
	if err := c.Connect(t.Context()); err != nil {
		t.Fatal(err)
	}
	out := echo.CallUnary(t.Context(), echo.At(host.URL, c.HTTPClient()), nil, nil)
	if connect.CodeOf(out.Err) != connect.CodeResourceExhausted || !strings.Contains(out.Err.Error(), "more than 1000 header fields") {
		t.Errorf("%v", out.Err)
	}
}
