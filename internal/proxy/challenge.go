package proxy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"

	"golang.org/x/net/http2/hpack"

	"github.com/masegraye/connect-plugin-go/internal/proxy/h2"
)

// maxChallengeAnswer bounds the answer to a challenge, in bytes.
const maxChallengeAnswer = 64 << 10

var errChallenge = errors.New("provider does not show that it is the one")

// Challenge is a unary call of Connect that a provider has to answer rightly on each new
// connection, before any other call goes over it.
type Challenge struct {
	// Path is the procedure, and Message the request.
	Path    string
	Message []byte
	// Check says what is wrong with the answer, nil for nothing.
	Check func(status int, body []byte) error
}

// challenge asks on a new connection, and refuses one that does not answer rightly before
// ctx ends.
func (p *Provider) challenge(ctx context.Context, conn *h2.Conn) error {
	if p.cfg.Challenge == nil {
		return nil
	}
	ask, err := p.cfg.Challenge()
	if err != nil {
		return fmt.Errorf("%w: %w", errChallenge, err)
	}
	stream, rest, err := conn.Open(h2.Request{Fields: p.challengeFields(&ask), Body: ask.Message, End: true, Gather: true})
	if err != nil {
		return fmt.Errorf("%w: %w", errChallenge, err)
	}
	defer stream.Close()
	defer context.AfterFunc(ctx, func() { stream.Cancel(context.Cause(ctx)) })()
	if len(rest) > 0 {
		err = stream.Write(rest, true)
	}
	var status int
	var body []byte
	if err == nil {
		status, body, err = readAnswer(stream)
	}
	if err == nil {
		err = ask.Check(status, body)
	}
	if err != nil {
		return fmt.Errorf("%w: %w", errChallenge, err)
	}
	return nil
}

func (p *Provider) challengeFields(ask *Challenge) []hpack.HeaderField {
	endpoint := &p.cfg.Endpoint
	scheme := schemeTLS
	if endpoint.plaintext {
		scheme = schemePlaintext
	}
	return []hpack.HeaderField{
		{Name: ":method", Value: http.MethodPost},
		{Name: ":scheme", Value: scheme},
		{Name: ":authority", Value: p.authority},
		{Name: ":path", Value: endpoint.path + ask.Path},
		{Name: "content-type", Value: "application/proto"},
		{Name: "connect-protocol-version", Value: "1"},
		{Name: "content-length", Value: strconv.Itoa(len(ask.Message))},
	}
}

// readAnswer reads a whole response.
func readAnswer(stream *h2.Stream) (status int, body []byte, err error) {
	if status, _, err = stream.Head(); err != nil {
		return 0, nil, err //nolint:wrapcheck // wrapped by the caller
	}
	for end := false; !end; {
		var part *h2.Buffer
		if part, end, err = stream.Next(); err != nil {
			return 0, nil, err //nolint:wrapcheck // wrapped by the caller
		}
		if part == nil {
			continue
		}
		body = append(body, part.B...)
		part.Release()
		if len(body) > maxChallengeAnswer {
			return 0, nil, io.ErrShortBuffer
		}
	}
	return status, body, nil
}
