package transcript

import (
	"crypto/tls"
	"errors"
	"fmt"
)

// Parameters of the channel binding: a value that both ends of one TLS
// connection, and nobody else, can compute (RFC 5705, and RFC 9266 for its use).
const (
	// ExporterLabel is the label of the exported keying material.
	ExporterLabel = "EXPORTER-connectplugin-handshake"
	// BindingSize is its size in bytes.
	BindingSize = 32
)

// ErrNoBinding is wrapped where there is no connection to bind to.
var ErrNoBinding = errors.New("no channel binding")

// ChannelBinding returns the value that binds a proof to the TLS connection of
// state, [BindingSize] bytes. It wraps [ErrNoBinding] where state is nil, the
// TLS handshake is not complete, or the connection cannot export one (TLS 1.2
// without extended master secret, RFC 7627).
func ChannelBinding(state *tls.ConnectionState) ([]byte, error) {
	if state == nil || !state.HandshakeComplete {
		return nil, ErrNoBinding
	}
	value, err := state.ExportKeyingMaterial(ExporterLabel, nil, BindingSize)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrNoBinding, err)
	}
	return value, nil
}
