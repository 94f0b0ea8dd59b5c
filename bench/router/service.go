package main

import (
	"encoding/binary"
	"errors"
	"io"
	"net/http"
	"strings"
	"sync"
)

const (
	servicePath = "/bench.v1.Bench/"
	unaryCall   = servicePath + "Unary"
	serverCall  = servicePath + "Server"
	bidiCall    = servicePath + "Bidi"

	unaryType  = "application/proto"
	streamType = "application/connect+proto"

	smallMessage = 256
	largeMessage = 64 << 10
	streamLength = 100 // messages of a server stream

	envelopeHead = 5
	flagEnd      = 2
)

// The service is written by hand in Connect's protocol, without a library at
// either end, so that little but net/http is measured beside the router: a unary
// call and a bidirectional stream return what they are sent, a server stream
// returns its message a number of times.

// buffers hold a large message.
var buffers = sync.Pool{New: func() any { return new([largeMessage]byte) }}

// envelope is a small message in its envelope.
func envelope() []byte {
	b := make([]byte, envelopeHead+smallMessage)
	binary.BigEndian.PutUint32(b[1:], smallMessage)
	return b
}

// ending is the last envelope of a stream that went well.
func ending() []byte { return []byte{flagEnd, 0, 0, 0, 2, '{', '}'} }

func serveCall(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", r.Header.Get("Content-Type"))
	switch {
	case r.Method != http.MethodPost:
		w.WriteHeader(http.StatusMethodNotAllowed)
	case strings.HasSuffix(r.URL.Path, "/Unary"):
		serveUnary(w, r)
	case strings.HasSuffix(r.URL.Path, "/Server"):
		serveStream(w, r)
	case strings.HasSuffix(r.URL.Path, "/Bidi"):
		serveBidi(w, r)
	default:
		w.WriteHeader(http.StatusNotFound)
	}
}

func serveUnary(w http.ResponseWriter, r *http.Request) {
	buffer, _ := buffers.Get().(*[largeMessage]byte)
	defer buffers.Put(buffer)
	n, err := io.ReadFull(r.Body, buffer[:])
	if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	_, _ = w.Write(buffer[:n])
}

// serveStream flushes each message, as a stream whose messages come one by one.
func serveStream(w http.ResponseWriter, r *http.Request) {
	message := make([]byte, envelopeHead+smallMessage)
	if _, err := io.ReadFull(r.Body, message); err != nil {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	flush := http.NewResponseController(w)
	for range streamLength {
		if _, err := w.Write(message); err != nil || flush.Flush() != nil {
			return
		}
	}
	_, _ = w.Write(ending())
}

func serveBidi(w http.ResponseWriter, r *http.Request) {
	flush := http.NewResponseController(w)
	_ = flush.Flush()
	message := make([]byte, envelopeHead+smallMessage)
	for {
		if _, err := io.ReadFull(r.Body, message); err != nil {
			break
		}
		if _, err := w.Write(message); err != nil || flush.Flush() != nil {
			return
		}
	}
	_, _ = w.Write(ending())
}
