package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"

	"google.golang.org/protobuf/encoding/protowire"
)

// Field numbers of the suite's messages, from its client_compat.proto and
// server_compat.proto.
const (
	requestHost protowire.Number = 6 // of ClientCompatRequest
	requestPort protowire.Number = 7
	requestCert protowire.Number = 8

	responseHost protowire.Number = 1 // of ServerCompatResponse
	responsePort protowire.Number = 2
	responseCert protowire.Number = 3
)

const (
	lengthBytes = 4 // before each message
	maxMessage  = 64 << 20
)

var errMessage = errors.New("malformed message")

// readMessage reads a message of the suite's programs: four bytes of length, then
// protobuf. The error is [io.EOF] at the end of the input.
func readMessage(r io.Reader) ([]byte, error) {
	var head [lengthBytes]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		if errors.Is(err, io.EOF) {
			return nil, io.EOF
		}
		return nil, fmt.Errorf("read message: %w", err)
	}
	n := binary.BigEndian.Uint32(head[:])
	if n > maxMessage {
		return nil, fmt.Errorf("%w: %d bytes", errMessage, n)
	}
	m := make([]byte, n)
	if _, err := io.ReadFull(r, m); err != nil {
		return nil, fmt.Errorf("read message: %w", err)
	}
	return m, nil
}

func writeMessage(w io.Writer, m []byte) error {
	out := make([]byte, lengthBytes, lengthBytes+len(m))
	binary.BigEndian.PutUint32(out, uint32(len(m))) //nolint:gosec // little more than was read
	if _, err := w.Write(append(out, m...)); err != nil {
		return fmt.Errorf("write message: %w", err)
	}
	return nil
}

// server is where a server of the suite listens.
type server struct {
	host string
	port uint64
	cert []byte // PEM
}

// url is its base URL.
func (s server) url() string {
	return "https://" + net.JoinHostPort(s.host, strconv.FormatUint(s.port, 10))
}

// readServer reads a server from a message that names one in three fields.
func readServer(m []byte, host, port, cert protowire.Number) (server, error) {
	s := server{host: "127.0.0.1"}
	for len(m) > 0 {
		num, typ, n := protowire.ConsumeTag(m)
		if n < 0 {
			return s, errMessage
		}
		m = m[n:]
		switch {
		case num == host && typ == protowire.BytesType:
			value, _ := protowire.ConsumeString(m)
			s.host = value
		case num == port && typ == protowire.VarintType:
			s.port, _ = protowire.ConsumeVarint(m)
		case num == cert && typ == protowire.BytesType:
			value, _ := protowire.ConsumeBytes(m)
			s.cert = append([]byte(nil), value...)
		}
		if n = protowire.ConsumeFieldValue(num, typ, m); n < 0 {
			return s, errMessage
		}
		m = m[n:]
	}
	if s.port == 0 || len(s.cert) == 0 {
		return s, fmt.Errorf("%w: names no server with TLS", errMessage)
	}
	return s, nil
}

// appendServer names a server in a message. The last value of a field counts, so
// it replaces the one that the message named before.
func appendServer(m []byte, s server, host, port, cert protowire.Number) []byte {
	m = protowire.AppendTag(m, host, protowire.BytesType)
	m = protowire.AppendString(m, s.host)
	m = protowire.AppendTag(m, port, protowire.VarintType)
	m = protowire.AppendVarint(m, s.port)
	m = protowire.AppendTag(m, cert, protowire.BytesType)
	return protowire.AppendBytes(m, s.cert)
}
