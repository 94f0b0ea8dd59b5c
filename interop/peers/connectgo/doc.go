// Package connectgo is the peer on connect-go and net/http, in the three protocols,
// with nothing of this library in it.
package connectgo
