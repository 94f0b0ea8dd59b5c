package probes

import (
	"net"
	"net/http"
	"strings"
)

// Rebound reports whether a request came over loopback under a name that could be anybody's: a web page in a
// browser of this machine has its own name mean loopback (DNS rebinding), and then reads what it is answered.
func Rebound(r *http.Request) bool {
	local, ok := r.Context().Value(http.LocalAddrContextKey).(*net.TCPAddr)
	if !ok || !local.IP.IsLoopback() {
		return false
	}
	name := r.Host
	if host, _, err := net.SplitHostPort(name); err == nil {
		name = host
	}
	return name != "" && !strings.EqualFold(name, "localhost") && net.ParseIP(strings.Trim(name, "[]")) == nil
}
