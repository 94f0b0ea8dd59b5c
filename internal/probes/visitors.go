package probes

import (
	"crypto/tls"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"sync"
)

// siteBits is the part of an IPv6 address that one site has as a whole.
const siteBits = 64

// Visitors are the connections of a server that anyone may reach. They keep room for the next
// one whoever connects and stays: where there are too many, one of whoever has the most makes
// room, and first one on which nothing is being asked. So an honest visitor, who has one or a few
// and asks at once, is the last to go. It is safe for concurrent use.
type Visitors struct {
	// Fixed before the first one comes.
	Most int // in all
	Each int // of one address (a /64 for IPv6)

	mu    sync.Mutex
	all   int
	came  uint64                // so far
	peers map[string][]*visitor // by address, in the order in which they came
}

// visitor is a connection.
type visitor struct {
	conn net.Conn
	came uint64
	asks bool // something was read of it that is not answered yet
}

// Keep counts connections. It is for a server's ConnState.
func (v *Visitors) Keep(conn net.Conn, state http.ConnState) {
	switch state {
	case http.StateNew:
		if gone := v.add(conn); gone != nil {
			abort(gone)
		}
	case http.StateClosed, http.StateHijacked:
		v.remove(conn)
	case http.StateActive, http.StateIdle:
		v.note(conn, state == http.StateActive)
	}
}

// add keeps a connection, and returns the one that has to go for it, if any.
func (v *Visitors) add(conn net.Conn) (gone net.Conn) {
	v.mu.Lock()
	defer v.mu.Unlock()
	from := peerOf(conn)
	switch {
	case len(v.peers[from]) >= v.Each:
		gone = v.displaceLocked(from)
	case v.all >= v.Most:
		gone = v.displaceLocked(v.largestLocked())
	}
	if v.peers == nil {
		v.peers = map[string][]*visitor{}
	}
	v.peers[from] = append(v.peers[from], &visitor{conn: conn, came: v.came})
	v.all++
	v.came++
	return gone
}

// largestLocked returns who has the most connections; of several, who came first.
func (v *Visitors) largestLocked() (from string) {
	for peer, visitors := range v.peers {
		now := v.peers[from]
		if len(visitors) > len(now) || len(visitors) == len(now) && visitors[0].came < now[0].came {
			from = peer
		}
	}
	return from
}

// displaceLocked takes out the oldest connection of a peer on which nothing is being
// asked, or else the oldest.
func (v *Visitors) displaceLocked(from string) net.Conn {
	at := max(slices.IndexFunc(v.peers[from], func(other *visitor) bool { return !other.asks }), 0)
	gone := v.peers[from][at].conn
	v.dropLocked(from, at)
	return gone
}

func (v *Visitors) dropLocked(from string, at int) {
	v.all--
	if v.peers[from] = slices.Delete(v.peers[from], at, at+1); len(v.peers[from]) == 0 {
		delete(v.peers, from)
	}
}

func (v *Visitors) note(conn net.Conn, asks bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if from, at := v.findLocked(conn); at >= 0 {
		v.peers[from][at].asks = asks
	}
}

func (v *Visitors) remove(conn net.Conn) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if from, at := v.findLocked(conn); at >= 0 {
		v.dropLocked(from, at)
	}
}

// findLocked returns where a connection is, -1 for nowhere.
func (v *Visitors) findLocked(conn net.Conn) (from string, at int) {
	from = peerOf(conn)
	return from, slices.IndexFunc(v.peers[from], func(other *visitor) bool { return other.conn == conn })
}

// peerOf returns under which name a connection counts: its address, or the /64 of that,
// which one site has as a whole.
func peerOf(conn net.Conn) string {
	at, err := netip.ParseAddrPort(conn.RemoteAddr().String())
	if err != nil {
		return ""
	}
	addr := at.Addr().Unmap()
	if site, err := addr.Prefix(siteBits); err == nil && addr.Is6() {
		return site.String()
	}
	return addr.String()
}

// abort ends a connection without a word, for which TLS would wait.
func abort(conn net.Conn) {
	if secure, ok := conn.(*tls.Conn); ok {
		conn = secure.NetConn()
	}
	_ = conn.Close()
}
