package proxy

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"

	"golang.org/x/net/http2/hpack"

	"github.com/masegraye/connect-plugin-go/internal/proxy/h2"
)

var errChallenge = errors.New("provider does not show that it is the one")

const lowContentType, lowGRPCStatus = "content-type", "grpc-status"

// Challenge is a unary call, in Connect or gRPC, that a provider has to answer rightly on each new connection,
// before any other call goes over it. The zero value asks nothing.
type Challenge struct {
	// Path is the procedure, and Message the request.
	Path    string
	Message []byte
	// Check says what is wrong with the answer, nil for nothing.
	Check func(Answer) error
	// Meanwhile lets calls go over the connection while it is being asked, whatever the answer is.
	Meanwhile bool
}

// challenge asks on a new connection, and refuses one that does not answer rightly before
// ctx ends.
func (p *Provider) challenge(ctx context.Context, conn *h2.Conn, nc net.Conn) error {
	if p.cfg.Challenge == nil {
		return nil
	}
	var shown *tls.ConnectionState
	if secure, ok := nc.(*tls.Conn); ok {
		state := secure.ConnectionState()
		shown = &state
	}
	ask, err := p.cfg.Challenge(shown)
	switch {
	case err != nil:
		return fmt.Errorf("%w: %w", errChallenge, err)
	case ask.Path == "":
		return nil
	case !ask.Meanwhile:
		return p.pose(ctx, conn, &ask)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.ctx.Err() == nil {
		p.background.Go(func() {
			ctx, cancel := context.WithTimeoutCause(p.ctx, p.cfg.DialTimeout, context.DeadlineExceeded)
			defer cancel()
			_ = p.pose(ctx, conn, &ask) // who asks hears of an answer, and whoever calls of a connection without one
		})
	}
	return nil
}

// pose asks what there is to be answered.
func (p *Provider) pose(ctx context.Context, conn *h2.Conn, ask *Challenge) error {
	inGRPC := p.grpcAlone.Load()
	got, contentType, err := p.put(ctx, conn, ask, inGRPC)
	if err == nil && inGRPC && p.guessedWrong(got.Status, contentType) {
		inGRPC = false
		got, contentType, err = p.put(ctx, conn, ask, inGRPC)
	}
	if err == nil && !inGRPC && p.understandsGRPCAlone(got.Status, contentType) {
		inGRPC = true
		got, _, err = p.put(ctx, conn, ask, inGRPC)
	}
	if err == nil {
		got.read(inGRPC)
		err = ask.Check(got.Answer)
	}
	if err != nil {
		return fmt.Errorf("%w: %w", errChallenge, err)
	}
	return nil
}

// put puts the question on a connection and returns what comes back.
func (p *Provider) put(ctx context.Context, conn *h2.Conn, ask *Challenge, inGRPC bool) (got rawAnswer, contentType string, err error) {
	body := ask.Message
	if inGRPC {
		body = intoEnvelope(body)
	}
	stream, rest, err := conn.Open(h2.Request{Fields: p.challengeFields(ask, len(body), inGRPC), Body: body, End: true, Gather: true})
	if err != nil {
		return got, "", err
	}
	defer stream.Close()
	defer context.AfterFunc(ctx, func() { stream.Cancel(context.Cause(ctx)) })()
	if len(rest) > 0 {
		if err := stream.Write(rest, true); err != nil {
			return got, "", err
		}
	}
	return readAnswer(stream)
}

func (p *Provider) challengeFields(ask *Challenge, size int, inGRPC bool) []hpack.HeaderField {
	endpoint := &p.cfg.Endpoint
	scheme := schemeTLS
	if endpoint.plaintext {
		scheme = schemePlaintext
	}
	fields := []hpack.HeaderField{
		{Name: ":method", Value: http.MethodPost},
		{Name: ":scheme", Value: scheme},
		{Name: ":authority", Value: p.authority},
		{Name: ":path", Value: endpoint.path + ask.Path},
		{Name: "content-length", Value: strconv.Itoa(size)},
	}
	if inGRPC {
		return append(fields, hpack.HeaderField{Name: lowContentType, Value: contentGRPC}, hpack.HeaderField{Name: "te", Value: "trailers"})
	}
	return append(fields, hpack.HeaderField{Name: lowContentType, Value: contentConnect},
		hpack.HeaderField{Name: "connect-protocol-version", Value: "1"})
}

// rawAnswer is an answer as it came.
type rawAnswer struct {
	Answer

	code string // of gRPC
}

// read says what an answer means.
func (a *rawAnswer) read(inGRPC bool) {
	switch {
	case !inGRPC:
		a.NotFound = saysNotFound(a.Status, a.Message)
	case a.Status == http.StatusOK:
		a.Status, a.Message = outOfEnvelope(a.code, a.Message)
		a.NotFound = a.code == grpcNotFound
	}
}

// readAnswer reads a whole response.
func readAnswer(stream *h2.Stream) (got rawAnswer, contentType string, err error) {
	status, fields, err := stream.Head()
	if err != nil {
		return got, "", err
	}
	got.Status = status
	for _, f := range fields {
		switch f.Name {
		case lowContentType:
			contentType = f.Value
		case lowGRPCStatus:
			got.code = f.Value
		}
	}
	for end := false; !end; {
		var part *h2.Buffer
		if part, end, err = stream.Next(); err != nil {
			return got, "", err
		}
		if part == nil {
			continue
		}
		got.Message = append(got.Message, part.B...)
		part.Release()
		if len(got.Message) > maxAnswer {
			return got, "", io.ErrShortBuffer
		}
	}
	for _, f := range stream.Trailer() {
		if f.Name == lowGRPCStatus {
			got.code = f.Value
		}
	}
	return got, contentType, nil
}
