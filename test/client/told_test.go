package client_test

import (
	"cmp"
	"context"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/proto"

	connectplugin "github.com/masegraye/connect-plugin-go"
	connectpluginv1 "github.com/masegraye/connect-plugin-go/gen/plugin/v1"
)

// feeds passes for a host that tells each watch what the test says.
type feeds struct {
	odd
	begun chan *feed // the watches, in their order
}

// feed is one watch.
type feed struct{ *io.PipeWriter }

// Do implements connect.HTTPClient.
func (h *feeds) Do(r *http.Request) (*http.Response, error) {
	if !strings.HasSuffix(r.URL.Path, "/WatchService") {
		return h.odd.Do(r)
	}
	f, resp := watched(r)
	h.begun <- f
	return resp, nil
}

// watched answers a request for a watch.
func watched(r *http.Request) (*feed, *http.Response) {
	body, says := io.Pipe()
	context.AfterFunc(r.Context(), func() { _ = says.CloseWithError(r.Context().Err()) })
	resp := &http.Response{StatusCode: http.StatusOK, Proto: "HTTP/2.0", ProtoMajor: 2, Header: http.Header{}, Request: r, Body: body}
	resp.Header.Set("Content-Type", "application/connect+proto")
	return &feed{says}, resp
}

const (
	available   = connectpluginv1.ServiceState_SERVICE_STATE_AVAILABLE
	unavailable = connectpluginv1.ServiceState_SERVICE_STATE_UNAVAILABLE
)

// says tells the watch a state of the type.
func (f *feed) says(t *testing.T, state connectpluginv1.ServiceState, epoch string, sequence uint64) {
	t.Helper()
	event := &connectpluginv1.WatchServiceEvent{ServiceType: "store", State: state, Sequence: sequence, Epoch: epoch}
	if state == available {
		event.Endpoint = &connectpluginv1.ServiceEndpoint{ProviderId: "store-1", Version: "1.0.0", EndpointUrl: "/services/store/store-1"}
	}
	m, err := proto.Marshal(event)
	if err == nil {
		_, err = f.Write(envelope(0, m))
	}
	if err != nil {
		t.Error(err)
	}
}

// callOver calls the service over its connection, and sends the error and how long that took.
func callOver(t *testing.T, conn *connectplugin.ServiceConn) <-chan called {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, conn.BaseURL()+"/store.v1.Store/Get", http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	done, begun := make(chan called, 1), time.Now()
	go func() {
		resp, err := conn.HTTPClient().Do(r)
		if err == nil {
			err = resp.Body.Close()
		}
		done <- called{err, time.Since(begun)}
	}()
	return done
}

type called struct {
	err  error
	took time.Duration
}

// Who saw over a watch that a service is there may call it over a connection that was made before, which has a watch of its own
// and hears of it later.
func TestServiceConn_KnowsWhatItsUserWasTold(t *testing.T) {
	t.Parallel()
	const late = 300 * time.Millisecond
	for name, tt := range map[string]struct {
		hears       func(*testing.T, *feed) // what the connection does, a little later; nil for nothing
		reached     bool
		least, most time.Duration
		life        string // of the host that told its user; "e" where it is empty
	}{
		"a moment later": {func(t *testing.T, f *feed) { t.Helper(); f.says(t, available, "e", 2) }, true, late, late + 100*time.Millisecond, ""},
		"never":          {nil, false, time.Second, time.Second + 100*time.Millisecond, ""},
		"of a later state": {
			func(t *testing.T, f *feed) { t.Helper(); f.says(t, unavailable, "e", 3) }, false, late, late + 100*time.Millisecond, "",
		},
		"of another life of the host": {
			func(t *testing.T, f *feed) { t.Helper(); f.says(t, unavailable, "f", 1) }, false, late, late + 100*time.Millisecond, "",
		},
		"of the host's other life, in its order": {
			func(t *testing.T, f *feed) {
				t.Helper()
				f.says(t, unavailable, "f", 1)
				time.Sleep(late)
				f.says(t, available, "f", 2)
			}, true, 2 * late, 2*late + 100*time.Millisecond, "f",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				h := &feeds{begun: make(chan *feed, 2)}
				conn, mine := h.conn(t, cmp.Or(tt.life, "e"))
				defer conn.Close()
				done := callOver(t, conn)
				time.Sleep(late)
				if tt.hears != nil {
					tt.hears(t, mine)
				}
				got := <-done
				if got.took < tt.least || got.took > tt.most {
					t.Errorf("it took %s", got.took)
				}
				if tt.reached != (got.err == nil) || !tt.reached && !strings.Contains(got.err.Error(), "no provider of the service is available") {
					t.Errorf("the call: %v", got.err)
				}
				if again := <-callOver(t, conn); tt.reached != (again.err == nil) || again.took > 100*time.Millisecond {
					t.Errorf("the next one took %s: %v", again.took, again.err)
				}
			})
		})
	}
}

// conn makes a connection that knows of nobody, whose user was told that the service is there, in a life of the host, and returns
// its watch.
func (h *feeds) conn(t *testing.T, life string) (*connectplugin.ServiceConn, *feed) {
	t.Helper()
	client := h.client(t)
	made := make(chan *connectplugin.ServiceConn)
	go func() {
		conn, err := client.Service(t.Context(), "store", "")
		if err != nil {
			t.Error(err)
		}
		made <- conn
	}()
	mine := <-h.begun
	mine.says(t, unavailable, "e", 1)
	conn := <-made
	saw, over := make(chan connectpluginv1.ServiceState), make(chan struct{})
	ctx, cancel := context.WithCancel(t.Context())
	t.Cleanup(func() {
		cancel()
		<-over
	})
	go func() {
		defer close(over)
		for event, err := range client.WatchService(ctx, "store") {
			if err != nil {
				return
			}
			saw <- event.State
		}
	}()
	users := <-h.begun
	for i, state := range []connectpluginv1.ServiceState{unavailable, available} {
		users.says(t, state, life, uint64(i)+1)
		if got := <-saw; got != state {
			t.Errorf("the user is told %s", got)
		}
	}
	return conn, mine
}

// client makes a connected client of it.
func (h *feeds) client(t *testing.T) *connectplugin.Client {
	t.Helper()
	return connected(t, h, &h.odd)
}
