// Package curl is the peer on curl, which speaks Connect's protocol with words, and on
// h2load.
package curl

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/masegraye/connect-plugin-go/interop/echo"
)

const statusOK = 200

var errWrong = errors.New("wrong answer")

// answer is a response as curl saw it.
type answer struct {
	status int
	body   []byte
}

// run runs curl with a request body. The error is curl's own.
func run(ctx context.Context, j echo.Job, body []byte, args ...string) (answer, error) {
	all := append([]string{
		"--silent", "--show-error", "--http2", "--cacert", filepath.Join(j.Dir, echo.FileCA),
		"--write-out", "\n%{http_code}", "--data-binary", "@-",
	}, headers(j)...)
	cmd := exec.CommandContext(ctx, "curl", append(all, args...)...) //nolint:gosec // the arguments are those of this package
	var out, problem bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(body), &out, &problem
	if err := cmd.Run(); err != nil {
		return answer{}, fmt.Errorf("curl: %w: %s", err, strings.TrimSpace(problem.String()))
	}
	i := bytes.LastIndexByte(out.Bytes(), '\n')
	status, err := strconv.Atoi(string(out.Bytes()[i+1:]))
	if err != nil {
		return answer{}, fmt.Errorf("curl: %w", err)
	}
	return answer{status: status, body: out.Bytes()[:i]}, nil
}

// headers are the caller's credentials and, without host, the certificate.
func headers(j echo.Job) []string {
	if j.Present {
		return []string{"--cert", filepath.Join(j.Dir, echo.FileCert), "--key", filepath.Join(j.Dir, echo.FileKey)}
	}
	return []string{"--header", "X-Plugin-Runtime-Id: " + j.ID, "--header", "Authorization: Bearer " + j.Token}
}

func url(j echo.Job, method string) string {
	return "https://" + j.Target + j.Prefix + echo.Base + method
}

// call makes a unary call. The message is JSON, as a person would write it.
func call(ctx context.Context, j echo.Job, method string, in []byte, args ...string) (answer, error) {
	body := []byte(`"` + base64.StdEncoding.EncodeToString(in) + `"`)
	args = append(args, "--header", "Content-Type: application/json", url(j, method))
	return run(ctx, j, body, args...)
}

// value makes a unary call that succeeds.
func value(ctx context.Context, j echo.Job, method string, in []byte) ([]byte, error) {
	a, err := call(ctx, j, method, in)
	if err != nil {
		return nil, err
	}
	if a.status != statusOK {
		return nil, fmt.Errorf("%w: status %d: %.200s", errWrong, a.status, a.body)
	}
	var text []byte
	if err := json.Unmarshal(a.body, &text); err != nil {
		return nil, fmt.Errorf("answer: %w", err)
	}
	return text, nil
}

// failure makes a unary call that fails, and reads the error.
func failure(ctx context.Context, j echo.Job, method string, in []byte, args ...string) (code string, detail []byte, err error) {
	a, err := call(ctx, j, method, in, args...)
	if err != nil {
		return "", nil, err
	}
	var e struct {
		Code    string `json:"code"`
		Details []struct {
			Value string `json:"value"`
		} `json:"details"`
	}
	if err := json.Unmarshal(a.body, &e); err != nil {
		return "", nil, fmt.Errorf("error: status %d: %.200s: %w", a.status, a.body, err)
	}
	for _, d := range e.Details {
		if detail, err = base64.RawStdEncoding.DecodeString(strings.TrimRight(d.Value, "=")); err != nil {
			return "", nil, fmt.Errorf("detail: %w", err)
		}
	}
	return e.Code, detail, nil
}

const (
	envelopeHead = 5
	flagEnd      = 2
)

// envelope puts a message into Connect's envelope.
func envelope(in []byte) []byte {
	text := []byte(`"` + base64.StdEncoding.EncodeToString(in) + `"`)
	b := binary.BigEndian.AppendUint32([]byte{0}, uint32(len(text))) //nolint:gosec // short
	return append(b, text...)
}

// stream sends messages in one body and returns those of the answer.
func stream(ctx context.Context, j echo.Job, method string, in ...[]byte) ([]string, error) {
	body := make([]byte, 0, envelopeHead*len(in))
	for _, m := range in {
		body = append(body, envelope(m)...)
	}
	a, err := run(ctx, j, body, "--header", "Content-Type: application/connect+json", url(j, method))
	if err != nil {
		return nil, err
	}
	var out []string
	for b := a.body; len(b) >= envelopeHead; {
		flags, size := b[0], int(binary.BigEndian.Uint32(b[1:]))
		if len(b) < envelopeHead+size {
			break
		}
		text := b[envelopeHead : envelopeHead+size]
		b = b[envelopeHead+size:]
		if flags&flagEnd != 0 {
			if string(text) != "{}" {
				return out, fmt.Errorf("%w: end: %.200s", errWrong, text)
			}
			return out, nil
		}
		var m []byte
		if err := json.Unmarshal(text, &m); err != nil {
			return out, fmt.Errorf("message: %w", err)
		}
		out = append(out, string(m))
	}
	return out, fmt.Errorf("%w: no end: status %d: %.200s", errWrong, a.status, a.body)
}
