package curl

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/masegraye/connect-plugin-go/interop/echo"
)

const (
	calls         = 10
	messages      = 100
	smallDetail   = 1000
	largeDetail   = 20_000
	shortDeadline = "300" // ms
	longSleep     = "20000"
	stopSleep     = "3000"
	pollEvery     = 100 * time.Millisecond
	polls         = 100
)

// Play plays a case with curl.
func Play(ctx context.Context, name string, j echo.Job, t *echo.Talk) (string, error) {
	switch name {
	case echo.CaseUnary:
		return "", playUnary(ctx, j, calls, []byte("unary"))
	case echo.CaseLarge:
		return "", playUnary(ctx, j, 1, bytes.Repeat([]byte("l"), j.Large))
	case echo.CaseClient, echo.CaseServer, echo.CaseHalfClose:
		return "", playStream(ctx, name, j)
	case echo.CaseDeadline, echo.CaseCancel:
		return "", playEnd(ctx, name, j)
	case echo.CaseDetails:
		return "", playDetails(ctx, j, smallDetail)
	case echo.CaseDetails20:
		return "", playDetails(ctx, j, largeDetail)
	case echo.CaseStop:
		return "", playInFlight(ctx, j, t, stopSleep, "")
	case echo.CaseKill:
		return "", playInFlight(ctx, j, t, longSleep, "unavailable")
	}
	return "", fmt.Errorf("%w: case %q", errWrong, name)
}

func playUnary(ctx context.Context, j echo.Job, n int, in []byte) error {
	for range n {
		out, err := value(ctx, j, echo.MethodUnary, in)
		if err != nil {
			return err
		}
		if !bytes.Equal(in, out) {
			return fmt.Errorf("%w: %d other bytes", errWrong, len(out))
		}
	}
	return nil
}

// playStream sends a whole body; all three kinds of streams can be called so.
func playStream(ctx context.Context, name string, j echo.Job) error {
	var in [][]byte
	var want []string
	method := echo.MethodServer
	switch name {
	case echo.CaseServer:
		in = [][]byte{[]byte(strconv.Itoa(messages))}
		for i := range messages {
			want = append(want, strconv.Itoa(i))
		}
	case echo.CaseClient:
		method = echo.MethodClient
		in, want = slices.Repeat([][]byte{[]byte("message")}, messages), []string{strconv.Itoa(messages * len("message"))}
	default:
		method = echo.MethodBidi
		in, want = [][]byte{[]byte("a"), []byte("b")}, []string{"a", "b", echo.Done}
	}
	got, err := stream(ctx, j, method, in...)
	if err != nil {
		return err
	}
	if !slices.Equal(got, want) {
		return fmt.Errorf("%w: %.100q", errWrong, got)
	}
	return nil
}

// playEnd has a call end before its time: by its deadline, or because curl goes away.
func playEnd(ctx context.Context, name string, j echo.Job) error {
	if name == echo.CaseDeadline {
		code, _, err := failure(ctx, j, echo.MethodSleep, []byte(longSleep), "--header", "Connect-Timeout-Ms: "+shortDeadline)
		if err != nil || code != "deadline_exceeded" {
			return fmt.Errorf("%w: code %q: %w", errWrong, code, orWrong(err))
		}
	} else if _, err := call(ctx, j, echo.MethodSleep, []byte(longSleep), "--max-time", "0.5"); err == nil {
		return fmt.Errorf("%w: curl did not give up", errWrong)
	}
	return awaitRunning(ctx, j, 0)
}

func playDetails(ctx context.Context, j echo.Job, size int) error {
	code, detail, err := failure(ctx, j, echo.MethodFail, fmt.Appendf(nil, "9 %d", size))
	if err != nil {
		return err
	}
	if code != "failed_precondition" || !bytes.Contains(detail, echo.Detail(size)) {
		return fmt.Errorf("%w: code %q, a detail of %d bytes", errWrong, code, len(detail))
	}
	return nil
}

// playInFlight has calls in flight while something is done to the provider. They end
// with the code, empty for well.
func playInFlight(ctx context.Context, j echo.Job, t *echo.Talk, sleep, want string) error {
	var wg sync.WaitGroup
	failed := make(chan error, calls)
	for range calls {
		wg.Go(func() {
			a, err := call(ctx, j, echo.MethodSleep, []byte(sleep))
			if err != nil || (want == "") != (a.status == statusOK) || !strings.Contains(string(a.body), want) {
				failed <- fmt.Errorf("%w: status %d: %.200s: %w", errWrong, a.status, a.body, orWrong(err))
			}
		})
	}
	if err := awaitRunning(ctx, j, calls); err != nil {
		return err
	}
	prefix, err := t.Ready()
	wg.Wait()
	if err != nil {
		return fmt.Errorf("ready: %w", err)
	}
	select {
	case err := <-failed:
		return err
	default:
	}
	if want == "" {
		return nil
	}
	j.Prefix = prefix
	return playUnary(ctx, j, 1, []byte("again"))
}

// awaitRunning waits until so many calls run at the provider, as that counts.
func awaitRunning(ctx context.Context, j echo.Job, want int) error {
	for range polls {
		n, err := value(ctx, j, echo.MethodCount, nil)
		if err != nil || string(n) == strconv.Itoa(want) {
			return err
		}
		pause(ctx, pollEvery)
	}
	return fmt.Errorf("%w: the provider does not count %d calls", errWrong, want)
}

func pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

func orWrong(err error) error {
	if err == nil {
		return errWrong
	}
	return err
}
