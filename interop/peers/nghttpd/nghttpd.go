// Package nghttpd is the peer on nghttp2's own server, which serves files. curl and
// h2load fetch them.
package nghttpd

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/masegraye/connect-plugin-go/interop/echo"
	"github.com/masegraye/connect-plugin-go/interop/peers/curl"
)

const (
	ownerOnly    = 0o600
	small, large = "small.bin", "large.bin"
	smallSize    = 1000
	fetches      = 10
	startTries   = 100
	startPause   = 50 * time.Millisecond
)

var (
	errWrong = errors.New("wrong answer")
	errStart = errors.New("nghttpd does not listen")
)

// Serve runs nghttpd until ctx ends.
func Serve(ctx context.Context, j echo.Job, port int, ready func() error) error {
	files := filepath.Join(j.Dir, "files")
	if err := os.MkdirAll(files, 0o700); err != nil { //nolint:mnd // its owner alone
		return fmt.Errorf("files: %w", err)
	}
	for name, size := range map[string]int{small: smallSize, large: j.Large} {
		if err := os.WriteFile(filepath.Join(files, name), bytes.Repeat([]byte("f"), size), ownerOnly); err != nil {
			return fmt.Errorf("files: %w", err)
		}
	}
	cmd := exec.CommandContext(ctx, "nghttpd", "--htdocs="+files, "--address=127.0.0.1", "--verify-client", //nolint:gosec // fixed
		strconv.Itoa(port), filepath.Join(j.Dir, echo.FileKey), filepath.Join(j.Dir, echo.FileCert))
	// nghttpd trusts what OpenSSL trusts by default.
	cmd.Env = append(os.Environ(), "SSL_CERT_FILE="+filepath.Join(j.Dir, echo.FileCA))
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("nghttpd: %w", err)
	}
	if err := awaitListening(ctx, port); err != nil {
		return errors.Join(err, cmd.Process.Kill(), cmd.Wait())
	}
	if err := ready(); err != nil {
		return errors.Join(err, cmd.Process.Kill(), cmd.Wait())
	}
	_ = cmd.Wait() // it is killed, which is its end
	return nil
}

func awaitListening(ctx context.Context, port int) error {
	var d net.Dialer
	for range startTries {
		c, err := d.DialContext(ctx, "tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
		if err == nil {
			return c.Close() //nolint:wrapcheck // never fails
		}
		pause(ctx, startPause)
	}
	return errStart
}

func pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

// Play plays a case of its caller.
func Play(ctx context.Context, name string, j echo.Job, t *echo.Talk) (string, error) {
	switch name {
	case echo.CaseUnary:
		return "", fetchAll(ctx, j)
	case echo.CaseLarge:
		return "", fetch(ctx, j, large, "200", j.Large)
	case echo.CaseDetails:
		return "", fetch(ctx, j, "missing.bin", "404", -1)
	case echo.CaseStreams:
		return curl.Fetch(ctx, url(j, small), 3*j.Streams, j.Streams, //nolint:mnd // three times over
			"--header=x-plugin-runtime-id: "+j.ID, "--header=authorization: Bearer "+j.Token)
	case echo.CaseKill:
		return "", playKill(ctx, j, t)
	}
	return "", fmt.Errorf("%w: case %q", errWrong, name)
}

func fetchAll(ctx context.Context, j echo.Job) error {
	for range fetches {
		if err := fetch(ctx, j, small, "200", smallSize); err != nil {
			return err
		}
	}
	return nil
}

func url(j echo.Job, file string) string { return "https://" + j.Target + j.Prefix + "/" + file }

// fetch fetches a file and compares status and, unless negative, size.
func fetch(ctx context.Context, j echo.Job, file, status string, size int) error {
	out, err := get(ctx, j, file)
	if err != nil {
		return err
	}
	i := bytes.LastIndexByte(out, '\n')
	if got := string(out[i+1:]); got != status || (size >= 0 && i != size) {
		return fmt.Errorf("%w: status %s, %d bytes", errWrong, got, i)
	}
	return nil
}

func get(ctx context.Context, j echo.Job, file string, args ...string) ([]byte, error) {
	all := []string{
		"--silent", "--show-error", "--http2", "--cacert", filepath.Join(j.Dir, echo.FileCA), "--write-out", "\n%{http_code}",
		"--header", "X-Plugin-Runtime-Id: " + j.ID, "--header", "Authorization: Bearer " + j.Token,
	}
	if j.Present {
		all = append(all, "--cert", filepath.Join(j.Dir, echo.FileCert), "--key", filepath.Join(j.Dir, echo.FileKey))
	}
	var problem strings.Builder
	cmd := exec.CommandContext(ctx, "curl", append(append(all, args...), url(j, file))...) //nolint:gosec // the arguments are ours
	cmd.Stderr = &problem
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("curl: %w: %s", err, strings.TrimSpace(problem.String()))
	}
	return out, nil
}

// playKill has a slow download in flight when the server is killed: it breaks off, and then the
// server that was started anew answers.
func playKill(ctx context.Context, j echo.Job, t *echo.Talk) error {
	broken := make(chan error, 1)
	go func() {
		_, err := get(ctx, j, large, "--limit-rate", "500k")
		broken <- err
	}()
	pause(ctx, 10*startPause) //nolint:mnd // half a second
	prefix, err := t.Ready()
	if err != nil {
		return fmt.Errorf("ready: %w", err)
	}
	if err := <-broken; err == nil {
		return fmt.Errorf("%w: the download ended well", errWrong)
	}
	j.Prefix = prefix
	return fetch(ctx, j, small, "200", smallSize)
}
