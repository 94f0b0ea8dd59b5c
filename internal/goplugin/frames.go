package goplugin

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/http"

	"google.golang.org/protobuf/encoding/protowire"
)

const (
	prefixLen = 5 // a flag and a length before each message
	// maxMessage is more than the services here send: output comes in pieces of 1 KiB.
	maxMessage = 1 << 20
)

var errAnswer = errors.New("the plugin's answer is not understood")

// frame puts one message into the body of a gRPC request.
func frame(message []byte) io.Reader {
	b := make([]byte, prefixLen, prefixLen+len(message))
	binary.BigEndian.PutUint32(b[1:], uint32(len(message))) //nolint:gosec // our own, which are short
	return bytes.NewReader(append(b, message...))
}

// readFrame reads one message. io.EOF is the end of the body.
func readFrame(r io.Reader) ([]byte, error) {
	var head [prefixLen]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return nil, err //nolint:wrapcheck // io.EOF, or the transport's own
	}
	n := binary.BigEndian.Uint32(head[1:])
	if head[0] != 0 || n > maxMessage {
		return nil, fmt.Errorf("%w: a message is compressed, or has %d bytes", errAnswer, n)
	}
	m := make([]byte, n)
	if _, err := io.ReadFull(r, m); err != nil {
		return nil, fmt.Errorf("%w: a message is cut short: %w", errAnswer, err)
	}
	return m, nil
}

// Codes of gRPC.
const (
	statusOK            = "0"
	statusUnimplemented = "12"
)

// ErrUnimplemented says that the plugin does not have the service.
var ErrUnimplemented = errors.New("the plugin does not have the service")

// status reads how a call ended.
func status(resp *http.Response) error {
	const name = "Grpc-Status"
	switch code := cmp.Or(resp.Trailer.Get(name), resp.Header.Get(name)); code {
	case statusOK:
		return nil
	case statusUnimplemented:
		return ErrUnimplemented
	default:
		return fmt.Errorf("%w: gRPC status %.8q", errAnswer, code)
	}
}

// varintField returns a field of a message that is a number, 0 where it is not there.
func varintField(message []byte, number protowire.Number) (uint64, error) {
	var value uint64
	err := fields(message, func(n protowire.Number, t protowire.Type, raw []byte) {
		if n == number && t == protowire.VarintType {
			value, _ = protowire.ConsumeVarint(raw)
		}
	})
	return value, err
}

// bytesField returns a field of a message that is bytes, nil where it is not there.
func bytesField(message []byte, number protowire.Number) ([]byte, error) {
	var value []byte
	err := fields(message, func(n protowire.Number, t protowire.Type, raw []byte) {
		if n == number && t == protowire.BytesType {
			value, _ = protowire.ConsumeBytes(raw)
		}
	})
	return value, err
}

func fields(message []byte, each func(protowire.Number, protowire.Type, []byte)) error {
	for len(message) > 0 {
		number, kind, n := protowire.ConsumeTag(message)
		if n < 0 {
			return fmt.Errorf("%w: %w", errAnswer, protowire.ParseError(n))
		}
		message = message[n:]
		if n = protowire.ConsumeFieldValue(number, kind, message); n < 0 {
			return fmt.Errorf("%w: %w", errAnswer, protowire.ParseError(n))
		}
		each(number, kind, message[:n])
		message = message[n:]
	}
	return nil
}
