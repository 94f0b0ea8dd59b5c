package proxy

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
)

// Status is the outcome of an RPC as its protocol states it.
type Status struct {
	Code    uint32 // the number of the code in gRPC, 16 for unauthenticated
	Name    string // the name of the code in Connect, "unauthenticated"
	Message string // for the caller; may be empty
}

var errNoEnding = errors.New("protocol has no end of stream")

// framing is how a protocol marks the messages and the end of a stream.
type framing uint8

const (
	framingNone    framing = iota // the body is one message, or something unknown
	framingConnect                // envelopes, then an envelope with the outcome in JSON
	framingGRPC                   // envelopes, then trailers
	framingGRPCWeb                // envelopes, then an envelope with trailers
)

const (
	envelopeHead = 5 // a byte of flags and four of length

	flagConnectEnd = 0b0000_0010
	flagGRPCWebEnd = 0b1000_0000

	fieldStatus  = "Grpc-Status"
	fieldMessage = "Grpc-Message"
)

// framingOf tells the framing from the content type of a response.
func framingOf(contentType string) framing {
	switch contentType { // what almost all say, as they say it
	case "application/proto", "application/json":
		return framingNone
	case "application/grpc", "application/grpc+proto":
		return framingGRPC
	}
	mediaType, _, _ := strings.Cut(contentType, ";")
	mediaType = strings.ToLower(strings.TrimSpace(mediaType))
	switch {
	case hasType(mediaType, "application/grpc-web"):
		return framingGRPCWeb
	case hasType(mediaType, "application/grpc"):
		return framingGRPC
	case strings.HasPrefix(mediaType, "application/connect+"):
		return framingConnect
	default:
		return framingNone
	}
}

// hasType reports whether mediaType is base, or base with a codec after '+'.
func hasType(mediaType, base string) bool {
	tail, ok := strings.CutPrefix(mediaType, base)
	return ok && (tail == "" || tail[0] == '+')
}

// writeEnding ends a stream between two messages with the given outcome, in the
// stream's protocol.
func writeEnding(w http.ResponseWriter, f framing, s Status) error {
	var last []byte
	switch f {
	case framingGRPC:
		setTrailer(w, fieldStatus, strconv.FormatUint(uint64(s.Code), 10))
		setTrailer(w, fieldMessage, percentEncode(s.Message))
		return nil
	case framingGRPCWeb:
		last = grpcWebEnding(s)
	case framingConnect:
		last = connectEnding(s)
	case framingNone:
		return errNoEnding
	}
	if _, err := w.Write(last); err != nil {
		return fmt.Errorf("write end of stream: %w", err)
	}
	return nil
}

// setTrailer sets a trailer of a response whose headers are written.
func setTrailer(w http.ResponseWriter, name, value string) {
	w.Header().Set(http.TrailerPrefix+name, value)
}

// grpcWebEnding is the last envelope of a gRPC-Web stream: a block of trailers
// in the form of HTTP/1 (gRPC-Web's protocol description).
func grpcWebEnding(s Status) []byte {
	block := "grpc-status: " + strconv.FormatUint(uint64(s.Code), 10) + "\r\n" +
		"grpc-message: " + percentEncode(s.Message) + "\r\n"
	return envelope(flagGRPCWebEnd, []byte(block))
}

// connectEnding is the last envelope of a Connect stream: an EndStreamResponse.
func connectEnding(s Status) []byte {
	type outcome struct {
		Code    string `json:"code"`
		Message string `json:"message,omitempty"`
	}
	end := struct {
		Error outcome `json:"error"`
	}{outcome{Code: s.Name, Message: s.Message}}
	block, err := json.Marshal(end)
	if err != nil { // strings always marshal
		block = []byte(`{"error":{"code":"unknown"}}`)
	}
	return envelope(flagConnectEnd, block)
}

func envelope(flags byte, payload []byte) []byte {
	b := make([]byte, envelopeHead, envelopeHead+len(payload))
	b[0] = flags
	binary.BigEndian.PutUint32(b[1:], uint32(len(payload))) //nolint:gosec // a message of our own, far below 4 GiB
	return append(b, payload...)
}

// percentEncode encodes a gRPC status message: everything but visible ASCII and
// the blank, and the percent sign itself, becomes %XX.
func percentEncode(message string) string {
	const hexDigits = "0123456789ABCDEF"
	var b strings.Builder
	for i := range len(message) {
		c := message[i]
		if ' ' <= c && c <= '~' && c != '%' {
			b.WriteByte(c)
			continue
		}
		b.WriteByte('%')
		b.WriteByte(hexDigits[c>>4])
		b.WriteByte(hexDigits[c&0xf])
	}
	return b.String()
}
