package proxy

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// maxAnswer bounds the answer to a question, in bytes.
const maxAnswer = 64 << 10

// What a question is written in. Servers of Connect understand both, servers of gRPC the second alone.
const (
	contentConnect = "application/proto"
	contentGRPC    = "application/grpc+proto"
	kindOfGRPC     = "application/grpc"
)

const (
	fieldGRPCStatus    = "Grpc-Status"
	grpcOK             = "0"
	grpcNotFound       = "5"
	statusClientClosed = 499 // what Connect makes of canceled
)

// Answer is what a provider says to a question of the host's own.
type Answer struct {
	// Status is the HTTP status, also of an error that came in gRPC, as Connect maps codes to
	// statuses; zero where there was no answer.
	Status int
	// Message is the answer's message, empty with any other status than 200. It is cut off where it is
	// too long.
	Message []byte
	// NotFound says that the provider itself said not_found: a server that knows no such procedure says it
	// with the status alone, or says unimplemented.
	NotFound bool
}

// Ask makes a unary call of the host's own. It is written in Connect, or in gRPC where the provider understands that
// alone, which the first question finds out: such a server answers a request in Connect as one that is no gRPC. Where it is
// likely to be one (Config.GRPC) the first is written in gRPC, and once again in Connect where the answer is none in gRPC.
// The result says what became of the call; an answer that is too long is one.
func (p *Provider) Ask(ctx context.Context, path string, message []byte) (Answer, Result) {
	inGRPC := p.grpcAlone.Load()
	w, result := p.ask(ctx, path, message, inGRPC)
	if inGRPC && p.guessedWrong(result.Status, w.header.Get(fieldContentType)) {
		inGRPC = false
		w, result = p.ask(ctx, path, message, inGRPC)
	}
	if !inGRPC && p.understandsGRPCAlone(result.Status, w.header.Get(fieldContentType)) {
		inGRPC = true
		w, result = p.ask(ctx, path, message, inGRPC)
	}
	if errors.Is(result.Err, errAnswerTooLong) {
		result.Class = ClassOK
	}
	answer := Answer{Status: result.Status, Message: w.body}
	answer.NotFound = !inGRPC && saysNotFound(answer.Status, w.body)
	if inGRPC && answer.Status == http.StatusOK {
		status := w.header.Get(fieldGRPCStatus)
		if status == "" {
			status = w.header.Get(http.TrailerPrefix + fieldGRPCStatus)
		}
		answer.Status, answer.Message = outOfEnvelope(status, w.body)
		answer.NotFound = status == grpcNotFound
	}
	return answer, result
}

// saysNotFound reports whether an answer in Connect is the error of that code.
func saysNotFound(status int, body []byte) bool {
	return status == http.StatusNotFound && bytes.Contains(body, []byte(`"not_found"`))
}

func (p *Provider) ask(ctx context.Context, path string, message []byte, inGRPC bool) (*answerWriter, Result) {
	w := &answerWriter{header: http.Header{}}
	body := message
	if inGRPC {
		body = intoEnvelope(message)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, path, bytes.NewReader(body))
	if err != nil {
		return w, Result{Class: ClassUnavailable, Err: fmt.Errorf("question: %w", err)}
	}
	if inGRPC {
		req.Header.Set(fieldContentType, contentGRPC)
		req.Header.Set("Te", "trailers")
	} else {
		req.Header.Set(fieldContentType, contentConnect)
		req.Header.Set("Connect-Protocol-Version", "1")
	}
	return w, p.Forward(w, req, Call{Path: path, Urgent: true})
}

// understandsGRPCAlone takes account of the answer to a question in Connect and reports whether to ask again in gRPC.
func (p *Provider) understandsGRPCAlone(status int, contentType string) bool {
	if !SpeaksGRPCAlone(status, contentType) {
		return false
	}
	p.grpcAlone.Store(true)
	return true
}

// guessedWrong takes account of the answer to a question in gRPC, and reports whether to ask again in Connect: once, where gRPC
// was a guess and the answer is none in it.
func (p *Provider) guessedWrong(status int, contentType string) bool {
	if status == 0 || !p.grpcGuess.Load() {
		return false
	}
	if wrong := !strings.HasPrefix(contentType, kindOfGRPC); !p.grpcGuess.CompareAndSwap(true, false) || !wrong {
		return false
	}
	p.grpcAlone.Store(false)
	return true
}

// SpeaksGRPCAlone reports whether a call in Connect was answered as by a server that understands gRPC alone, which did
// nothing with it.
func SpeaksGRPCAlone(status int, contentType string) bool {
	return status == http.StatusUnsupportedMediaType || strings.HasPrefix(contentType, kindOfGRPC)
}

// intoEnvelope is a message as gRPC sends it.
func intoEnvelope(message []byte) []byte {
	b := make([]byte, envelopeHead, envelopeHead+len(message))
	binary.BigEndian.PutUint32(b[1:], uint32(len(message))) //nolint:gosec // a question is short
	return append(b, message...)
}

// outOfEnvelope returns the status and the message of an answer in gRPC. Without a status that says otherwise a whole
// message is an answer: some servers send no trailers where the connection ends.
func outOfEnvelope(status string, body []byte) (int, []byte) {
	whole := len(body) >= envelopeHead && body[0] == 0 && int(binary.BigEndian.Uint32(body[1:])) == len(body)-envelopeHead
	switch {
	case whole && (status == grpcOK || status == ""):
		return http.StatusOK, body[envelopeHead:]
	case status == grpcOK:
		return http.StatusBadGateway, nil // compressed, cut off, or more than one
	}
	code, err := strconv.Atoi(status)
	if err != nil {
		return http.StatusBadGateway, nil
	}
	if of, ok := statusOfCode[code]; ok {
		return of, nil
	}
	return http.StatusInternalServerError, nil
}

// statusOfCode is what Connect makes of a code, for those that are not the server's own fault.
var statusOfCode = map[int]int{
	1: statusClientClosed, 3: http.StatusBadRequest, 4: http.StatusGatewayTimeout, 5: http.StatusNotFound, 6: http.StatusConflict,
	7: http.StatusForbidden, 8: http.StatusTooManyRequests, 9: http.StatusBadRequest, 10: http.StatusConflict,
	11: http.StatusBadRequest, 12: http.StatusNotImplemented, 14: http.StatusServiceUnavailable, 16: http.StatusUnauthorized,
}

// answerWriter takes an answer into memory. It has the deadlines that the proxy
// sets, and needs none: the question's context ends it.
type answerWriter struct {
	header http.Header
	body   []byte
}

var errAnswerTooLong = errors.New("answer is too long")

// Header implements http.ResponseWriter.
func (w *answerWriter) Header() http.Header { return w.header }

// WriteHeader implements http.ResponseWriter. As one of net/http it keeps the fields that there are, whatever becomes of
// the map.
func (w *answerWriter) WriteHeader(int) { w.header = maps.Clone(w.header) }

// Write implements http.ResponseWriter.
func (w *answerWriter) Write(p []byte) (int, error) {
	if len(w.body)+len(p) > maxAnswer {
		return 0, errAnswerTooLong
	}
	w.body = append(w.body, p...)
	return len(p), nil
}

// FlushError does nothing, as http.ResponseController asks.
func (w *answerWriter) FlushError() error { return nil }

// SetReadDeadline does nothing: there is no body to read.
func (w *answerWriter) SetReadDeadline(time.Time) error { return nil }

// SetWriteDeadline does nothing: memory never blocks.
func (w *answerWriter) SetWriteDeadline(time.Time) error { return nil }
