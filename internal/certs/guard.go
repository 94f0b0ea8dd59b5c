package certs

import (
	"context"
	"crypto/tls"
	"fmt"
	"runtime/debug"
)

// Functions of a configuration, as a [PanicError] calls them.
const (
	OfServer = "TLS.GetCertificate"
	OfClient = "TLS.GetClientCertificate"
	OfConfig = "TLS.GetConfigForClient"
)

// PanicError is the error of a function of a TLS configuration, such as GetCertificate, that panicked. That
// counts as a failure: only the connection ends for which it was asked, as with net/http.
type PanicError struct {
	Of    string // the function
	Value any
	Stack []byte
}

func (p *PanicError) Error() string { return fmt.Sprintf("%s panicked: %v", p.Of, p.Value) }

// Guard returns a function of a configuration that fails with a [PanicError] where f panics, nil where f is nil.
func Guard[In, Out any](of string, f func(In) (Out, error)) func(In) (Out, error) {
	if f == nil {
		return nil
	}

	return func(in In) (out Out, err error) {
		defer caught(of, &err)

		return f(in)
	}
}

// Agree makes the TLS handshake of a connection. It fails with a [PanicError] where any function of the
// configuration panics.
func Agree(ctx context.Context, conn *tls.Conn) (err error) {
	defer caught("a function of the configuration of TLS", &err)

	return conn.HandshakeContext(ctx) //nolint:wrapcheck // whose connection it is says what it means
}

// caught is deferred where a function of somebody else's is called.
func caught(of string, err *error) { //nolint:gocritic // it sets the result of what defers it
	if value := recover(); value != nil {
		*err = &PanicError{Of: of, Value: value, Stack: debug.Stack()}
	}
}
