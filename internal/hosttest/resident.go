package hosttest

import (
	"io"
	"net/http"
	"sync/atomic"

	"google.golang.org/protobuf/proto"

	connectplugin "github.com/masegraye/connect-plugin-go"
	connectpluginv1 "github.com/masegraye/connect-plugin-go/gen/plugin/v1"
	"github.com/masegraye/connect-plugin-go/gen/plugin/v1/connectpluginv1connect"
)

// Resident serves as a plugin does that is written by hand: it answers questions for its
// health, with a proof, and Next serves the rest.
type Resident struct {
	// Next serves everything else.
	Next http.Handler
	// Asked counts the questions.
	Asked atomic.Int64

	lives atomic.Pointer[connectplugin.Client]
}

// Live says whose plugin serves from now on.
func (r *Resident) Live(c *connectplugin.Client) { r.lives.Store(c) }

// ServeHTTP implements http.Handler.
func (r *Resident) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	if req.URL.Path != connectpluginv1connect.PluginControlGetHealthProcedure {
		r.Next.ServeHTTP(w, req)
		return
	}
	r.Asked.Add(1)
	var m connectpluginv1.GetHealthRequest
	body, err := io.ReadAll(req.Body)
	c := r.lives.Load()
	if err != nil || proto.Unmarshal(body, &m) != nil || c == nil || m.GetRuntimeId() != c.RuntimeID() {
		http.NotFound(w, req)
		return
	}
	answer, _ := proto.Marshal(&connectpluginv1.GetHealthResponse{
		State: connectpluginv1.HealthState_HEALTH_STATE_HEALTHY, Proof: c.HealthProof(m.GetRuntimeId(), m.GetChallenge()),
	})
	w.Header().Set("Content-Type", "application/proto")
	_, _ = w.Write(answer)
}
