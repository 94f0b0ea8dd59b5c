package echo

import (
	"bytes"
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// The cases, in the order of the table.
const (
	CaseUnary     = "unary"
	CaseClient    = "client"
	CaseServer    = "server"
	CaseBidi      = "bidi"
	CaseHalfClose = "half-close"
	CaseDeadline  = "deadline"
	CaseCancel    = "cancel"
	CaseDetails   = "details"
	CaseDetails20 = "details-20k"
	CaseStreams   = "streams"
	CaseLarge     = "large"
	CaseStop      = "stop"
	CaseKill      = "kill"
	CaseSilence   = "silence"
)

// Cases are all of them.
func Cases() []string {
	return []string{
		CaseUnary, CaseClient, CaseServer, CaseBidi, CaseHalfClose, CaseDeadline, CaseCancel,
		CaseDetails, CaseDetails20, CaseStreams, CaseLarge, CaseStop, CaseKill, CaseSilence,
	}
}

const (
	smallMessage  = 256
	calls         = 100 // of a case that makes many
	rounds        = 50
	codeFailed    = 9 // failed_precondition
	codeDeadline  = 4
	smallDetail   = 1000
	largeDetail   = 20_000
	shortDeadline = 300 * time.Millisecond
	longSleep     = "20000" // ms; no case waits for its end
)

// Play plays a case and returns what is worth noting about it.
func Play(ctx context.Context, name string, c Caller, j Job, t *Talk) (string, error) {
	switch name {
	case CaseUnary:
		return "", playUnary(ctx, c)
	case CaseClient:
		return "", playClient(ctx, c)
	case CaseServer:
		return "", playServer(ctx, c)
	case CaseBidi:
		return "", playBidi(ctx, c)
	case CaseHalfClose:
		return "", playHalfClose(ctx, c)
	case CaseDeadline:
		return "", playDeadline(ctx, c)
	case CaseCancel:
		return "", playCancel(ctx, c)
	case CaseDetails:
		return "", playDetails(ctx, c, smallDetail)
	case CaseDetails20:
		return "", playDetails(ctx, c, largeDetail)
	case CaseLarge:
		return "", playLarge(ctx, c, j.Large)
	default:
		return playWithOthers(ctx, name, c, j, t)
	}
}

func playUnary(ctx context.Context, c Caller) error {
	in := bytes.Repeat([]byte("u"), smallMessage)
	for range calls {
		out, err := c.Unary(ctx, MethodUnary, in)
		if err != nil {
			return fmt.Errorf("call: %w", err)
		}
		if !bytes.Equal(in, out) {
			return wrong("message", string(out), string(in))
		}
	}
	return nil
}

func playClient(ctx context.Context, c Caller) error {
	s, err := c.Open(ctx, MethodClient)
	if err != nil {
		return fmt.Errorf("open: %w", err)
	}
	for range calls {
		if err := s.Send(bytes.Repeat([]byte("c"), smallMessage)); err != nil {
			return fmt.Errorf("send: %w", err)
		}
	}
	if err := s.CloseSend(); err != nil {
		return fmt.Errorf("half-close: %w", err)
	}
	if err := expect(s, strconv.Itoa(calls*smallMessage)); err != nil {
		return err
	}
	return expectEnd(s)
}

func playServer(ctx context.Context, c Caller) error {
	s, err := c.Open(ctx, MethodServer)
	if err != nil {
		return fmt.Errorf("open: %w", err)
	}
	if err := s.Send([]byte(strconv.Itoa(calls))); err != nil {
		return fmt.Errorf("send: %w", err)
	}
	if err := s.CloseSend(); err != nil {
		return fmt.Errorf("half-close: %w", err)
	}
	for i := range calls {
		if err := expect(s, strconv.Itoa(i)); err != nil {
			return err
		}
	}
	return expectEnd(s)
}

func playBidi(ctx context.Context, c Caller) error {
	s, err := openBidi(ctx, c)
	if err != nil {
		return err
	}
	for i := range rounds {
		if err := exchange(s, strconv.Itoa(i)); err != nil {
			return err
		}
	}
	return finish(s)
}

// playHalfClose ends the request before it reads anything of the answer.
func playHalfClose(ctx context.Context, c Caller) error {
	s, err := c.Open(ctx, MethodBidi)
	if err != nil {
		return fmt.Errorf("open: %w", err)
	}
	texts := []string{"a", "b", "c"}
	for _, text := range texts {
		if err := s.Send([]byte(text)); err != nil {
			return fmt.Errorf("send: %w", err)
		}
	}
	if err := s.CloseSend(); err != nil {
		return fmt.Errorf("half-close: %w", err)
	}
	for _, text := range append(texts, Done) {
		if err := expect(s, text); err != nil {
			return err
		}
	}
	return expectEnd(s)
}

// playDeadline has a call end by its deadline, for both sides.
func playDeadline(ctx context.Context, c Caller) error {
	short, cancel := context.WithTimeout(ctx, shortDeadline)
	defer cancel()
	_, err := c.Unary(short, MethodSleep, []byte(longSleep))
	if f := c.Failure(err); f.Code != codeDeadline {
		return fmt.Errorf("%w: code %d, want %d: %w", errWrong, f.Code, codeDeadline, orWrong(err))
	}
	return awaitRunning(ctx, c, 0)
}

func playDetails(ctx context.Context, c Caller, size int) error {
	_, err := c.Unary(ctx, MethodFail, fmt.Appendf(nil, "%d %d", codeFailed, size))
	f := c.Failure(err)
	switch {
	case f.Code != codeFailed:
		return fmt.Errorf("%w: code %d, want %d: %w", errWrong, f.Code, codeFailed, orWrong(err))
	case !strings.Contains(f.Text, FailText):
		return wrong("text", f.Text, FailText)
	case !bytes.Equal(f.Detail, Detail(size)):
		return fmt.Errorf("%w: a detail of %d bytes, want %d", errWrong, len(f.Detail), size)
	}
	return nil
}

// playLarge sends one large message as a unary call and one on a stream.
func playLarge(ctx context.Context, c Caller, size int) error {
	in := bytes.Repeat([]byte("l"), size)
	out, err := c.Unary(ctx, MethodUnary, in)
	if err != nil {
		return fmt.Errorf("unary: %w", err)
	}
	if !bytes.Equal(in, out) {
		return fmt.Errorf("%w: unary: %d other bytes, want %d", errWrong, len(out), size)
	}
	s, err := openBidi(ctx, c)
	if err != nil {
		return err
	}
	if err := exchange(s, string(in)); err != nil {
		return fmt.Errorf("stream: %w", err)
	}
	return finish(s)
}

// orWrong stands in for an error that is missing.
func orWrong(err error) error {
	if err == nil {
		return errWrong
	}
	return err
}
