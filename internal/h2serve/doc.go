// Package h2serve serves HTTP/2 over TLS to a peer that calls often. It does what the server of
// net/http does for handlers, with fewer goroutines on the way of a call: whoever reads a request
// that is complete serves it, and lets another goroutine read on; whoever answers writes what
// others have to send along with its own. A call that comes alone meets no other goroutine.
//
// It is for one peer that is authenticated by its certificate. It bounds what that peer can make
// it hold, and leaves everything about several peers, such as how many connections each may have,
// to the listener.
package h2serve
