package headers

import (
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
)

// maxDropped bounds the names that are told of. Callers choose names.
const maxDropped = 256

// quiet are names that are taken off every call because the host itself reads them, or
// because they are about one connection: nobody misses them.
var quiet = map[string]bool{
	Authorization: true, RuntimeID: true, "X-Plugin-Constraint": true, connection: true, "Content-Length": true,
}

// dropped tells of names that do not pass.
type dropped struct {
	// Fixed at creation.
	tell func(Direction, string)

	known atomic.Pointer[map[string]struct{}] // what was told; replaced as a whole
	mu    sync.Mutex                          // held to replace it
}

// Drop takes notice that a field did not pass. It costs a look-up where the name was told
// of before.
func (r *Rules) Drop(d Direction, name string) {
	if r.dropped == nil || quiet[name] {
		return
	}
	if r.dropped.note(name) {
		r.dropped.tell(d, name)
	}
}

// note reports whether a name is new, and there is room for it.
func (n *dropped) note(name string) bool {
	if known := n.known.Load(); known != nil {
		if _, ok := (*known)[name]; ok || len(*known) >= maxDropped {
			return false
		}
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	next := map[string]struct{}{}
	if known := n.known.Load(); known != nil {
		if _, ok := (*known)[name]; ok || len(*known) >= maxDropped {
			return false
		}
		next = maps.Clone(*known)
	}
	next[name] = struct{}{}
	n.known.Store(&next)
	return true
}

// String names the way that a field travels.
func (d Direction) String() string {
	switch d {
	case Request:
		return "request"
	case Response:
		return "response"
	case Trailer:
		return "trailer"
	default:
		return "any"
	}
}

// ErrName says that an operator cannot let a name pass.
var ErrName = errors.New("cannot be passed on")

// neverAdded are names that no operator can let pass: they are about one connection, the
// host reads or states them itself, or the protocols use them.
var neverAdded = []string{
	"Connection", "Keep-Alive", "Proxy-Connection", "Transfer-Encoding", "Upgrade", "Trailer", "Http2-Settings", "Close",
	"Alpn", "Capsule-Protocol", "Host", "Origin", "Expect", "Status", "Priority",
	"Authorization", "Www-Authenticate", "Authentication-Info", "Authentication-Control", "Alt-Svc",
}

// neverPrefixes start such names.
var neverPrefixes = []string{"X-Plugin-", "Connect-", "Grpc-", "Trailer-", "Content-", "Proxy-", "Sec-", "Access-Control-"}

// CheckName reports why an operator cannot let a name pass, nil where that is possible. The
// error wraps [ErrName].
func CheckName(name string) error {
	canonical := http.CanonicalHeaderKey(name)
	if !validName(name) {
		return fmt.Errorf("%w: %q has other characters than letters, digits, '-', '_' and '.'", ErrName, name)
	}
	spelled := http.CanonicalHeaderKey(strings.ReplaceAll(canonical, "_", "-"))
	for _, n := range []string{canonical, spelled} {
		if protocolFields[n] != noDirection {
			return fmt.Errorf("%w: %q is a field of the protocols", ErrName, name)
		}
		starts := func(prefix string) bool { return strings.HasPrefix(n, prefix) }
		if slices.Contains(neverAdded, n) || slices.ContainsFunc(neverPrefixes, starts) {
			return fmt.Errorf("%w: %q is about one connection, or the host's own", ErrName, name)
		}
	}
	return nil
}
