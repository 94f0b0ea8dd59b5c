package catalogue_test

import (
	"context"
	"fmt"
	"slices"
	"sync"

	"connectrpc.com/connect"

	connectpluginv1 "github.com/masegraye/connect-plugin-go/gen/plugin/v1"
	"github.com/masegraye/connect-plugin-go/internal/hosttest"
)

// modelWatch is a watcher of the model test: an open stream, which a goroutine
// reads unless it is told to stall, and what should come.
type modelWatch struct {
	// Fixed when it is opened.
	plugin      *modelPlugin
	serviceType string
	kind        *modelKind
	line        int // the connection that it uses
	cancel      context.CancelFunc
	ended       chan struct{} // closed when the stream is over

	mu       sync.Mutex
	wake     *sync.Cond
	stalled  bool
	received []*connectpluginv1.WatchServiceEvent
	err      error

	// Used by the test's goroutine alone.
	late    bool // when it ended it did not read: nobody knows how the end looks
	checked int  // events of received
	first   *modelFirst
	seen    uint64
	epoch   string
}

// modelFirst is what should come first; nil once it did.
type modelFirst struct {
	sequence, missed uint64
	resync           bool
}

// open opens the stream and returns when the host has answered.
func (w *modelWatch) open(ctx context.Context, d *modelDriver, req *connectpluginv1.WatchServiceRequest) error {
	ctx, w.cancel = context.WithCancel(ctx)
	w.ended = make(chan struct{})
	w.wake = sync.NewCond(&w.mu)
	stream, err := d.lines[w.line].registry.WatchService(ctx, hosttest.WithCredentials(req, w.plugin.id, w.plugin.token))
	if err != nil {
		close(w.ended)
		return err
	}
	stream.ResponseHeader()
	go w.read(stream)
	return nil
}

func (w *modelWatch) read(stream *connect.ServerStreamForClient[connectpluginv1.WatchServiceEvent]) {
	defer close(w.ended)
	defer stream.Close()
	for {
		w.mu.Lock()
		for w.stalled {
			w.wake.Wait()
		}
		w.mu.Unlock()
		ok := stream.Receive()
		w.mu.Lock()
		if !ok {
			w.err = stream.Err()
			w.mu.Unlock()
			return
		}
		w.received = append(w.received, stream.Msg())
		w.mu.Unlock()
	}
}

func (w *modelWatch) stall(stalled bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.stalled = stalled
	w.wake.Broadcast()
}

func (w *modelWatch) isStalled() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.stalled
}

func (w *modelWatch) over() bool {
	select {
	case <-w.ended:
		return true
	default:
		return false
	}
}

// check compares what came with the log and returns what is wrong.
func (w *modelWatch) check(d *modelDriver) string {
	w.mu.Lock()
	news := slices.Clone(w.received[w.checked:])
	w.checked = len(w.received)
	w.mu.Unlock()
	for _, e := range news {
		if wrong := w.take(d, e); wrong != "" {
			return fmt.Sprintf("%s (%s) after %d: %s: %v", w.serviceType, w.plugin.id, w.seen, wrong, e)
		}
		w.seen, w.epoch = e.GetSequence(), e.GetEpoch()
	}
	return ""
}

func (w *modelWatch) take(d *modelDriver, e *connectpluginv1.WatchServiceEvent) string {
	if wrong := d.knowEpoch(w.kind.epoch, e.GetEpoch()); wrong != "" {
		return wrong
	}
	switch first := w.first; {
	case first != nil:
		w.first = nil
		if e.GetSequence() != first.sequence || e.GetMissed() != first.missed || e.GetResync() != first.resync {
			return fmt.Sprintf("is not the first event %+v", *first)
		}
	case e.GetSequence() != w.seen+e.GetMissed()+1, e.GetResync() != (e.GetMissed() > 0):
		return "does not follow"
	case e.GetResync() && e.GetMissed() < modelBuffer:
		return "skips what the host keeps"
	}
	if e.GetResync() {
		d.done["resync"]++
	}
	if e.GetMissed() > 0 {
		d.done["missed"]++
	}
	if e.GetSequence() > uint64(len(w.kind.log)) {
		return fmt.Sprintf("is beyond the last event, %d", len(w.kind.log))
	}
	at := modelEvent{state: hosttest.Unavailable}
	if e.GetSequence() > 0 {
		at = w.kind.log[e.GetSequence()-1]
	}
	if at.loose {
		return ""
	}
	return at.compare(e, e.GetSequence() == uint64(len(w.kind.log)))
}

// compare says in what an event is not the one of the log. The last one is
// complete; of one that was overtaken the metadata may be missing.
func (at modelEvent) compare(e *connectpluginv1.WatchServiceEvent, last bool) string {
	endpoint := e.GetEndpoint()
	if e.GetState() != at.state || (endpoint == nil) != (at.provider == nil) {
		return fmt.Sprintf("has another state than %v", at.state)
	}
	if at.provider == nil {
		return ""
	}
	return at.provider.compare(endpoint, last)
}

func (o *modelOffer) compare(got *connectpluginv1.ServiceEndpoint, complete bool) string {
	if got.GetProviderId() != o.plugin.id || got.GetVersion() != o.vers || got.GetEndpointUrl() != "/services/"+o.serviceType+"/"+o.plugin.id {
		return fmt.Sprintf("has another provider than %s, %s", o.plugin.id, o.vers)
	}
	if (complete || len(got.GetMetadata()) > 0) && len(got.GetMetadata()) != len(o.metadata()) {
		return "has other metadata"
	}
	return ""
}

// metadata of an offer that is padded is so large that few events fill a stream
// that nobody reads.
func (o *modelOffer) metadata() map[string]string {
	m := map[string]string{"k": "v"}
	if o.padded {
		for i := range 4 {
			m[fmt.Sprint(i)] = modelPadding
		}
	}
	return m
}

// opening says how a watch is answered and what comes first, and enters it.
func (h *modelHost) opening(w *modelWatch, req *connectpluginv1.WatchServiceRequest, epochs map[int]string) connect.Code {
	mine := 0
	for _, other := range h.watches {
		if other.plugin == w.plugin {
			mine++
		}
	}
	switch {
	case !h.lives(w.plugin):
		return connect.CodeUnauthenticated
	case !h.mayRequire(w.plugin, w.serviceType):
		return connect.CodeNotFound
	case len(h.watches) == modelMaxWatches, mine == modelMaxWatchesEach:
		return connect.CodeResourceExhausted
	}
	w.kind = h.kind(w.serviceType)
	h.watches = append(h.watches, w)
	at, after := uint64(len(w.kind.log)), req.GetResumeAfter()
	epoch, known := epochs[w.kind.epoch]
	switch {
	case req.GetEpoch() == "" && after == 0:
		w.first = &modelFirst{sequence: at}
	case !known || req.GetEpoch() != epoch || after > at:
		w.first = &modelFirst{sequence: at, resync: true}
	case at-after > modelBuffer:
		w.first = &modelFirst{sequence: at, missed: at - after - 1, resync: true}
	case after < at:
		w.first = &modelFirst{sequence: after + 1}
	}
	w.seen, w.epoch = after, req.GetEpoch()
	return 0
}
