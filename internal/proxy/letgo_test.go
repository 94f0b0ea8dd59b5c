package proxy_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/masegraye/connect-plugin-go/internal/proxy"
)

// However often connections are let go that carried nothing but questions, no call is lost that comes at that moment, and no question.
func TestLetGo_LosesNothing(t *testing.T) {
	t.Parallel()
	const callers, rounds, most = 4, 40, 100_000 // so often, that whoever is slow comes to an end
	g := newRig(t, rigConfig{handler: func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "done") }})
	for round := range rounds {
		p := newProvider(t, proxy.Config{
			Endpoint: endpointOf(t, g.target.URL), TLS: &tls.Config{RootCAs: poolOf(g.target)}, DialTimeout: patience, RoomTimeout: patience,
		})
		ctx, end := context.WithCancel(t.Context())
		var letting, calling sync.WaitGroup
		letting.Go(func() {
			for i := 0; i < most && ctx.Err() == nil; i++ {
				p.LetGo()
			}
		})
		for i := range 1 + round%callers {
			calling.Go(func() {
				if i == 0 {
					if _, result := p.Ask(t.Context(), servicePth+"Q", nil); result.Class != proxy.ClassOK {
						t.Errorf("a question: %v", result.Err)
					}
					return
				}
				r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, servicePth+"Say", strings.NewReader("x"))
				if err != nil {
					t.Error(err)
					return
				}
				w := &recorder{}
				if result := p.Forward(w, r, proxy.Call{Path: servicePth + "Say", CallerID: "c"}); result.Class != proxy.ClassOK || w.String() != "done" {
					t.Errorf("a call: %v, %q", result.Err, w.String())
				}
			})
		}
		calling.Wait()
		end()
		letting.Wait()
	}
}

// recorder takes an answer.
type recorder struct {
	bytes.Buffer

	header http.Header
}

func (r *recorder) Header() http.Header {
	if r.header == nil {
		r.header = http.Header{}
	}
	return r.header
}

func (*recorder) WriteHeader(int) {}
