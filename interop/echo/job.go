package echo

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
)

// Env is the name of the environment variable that holds a process's [Job] as JSON.
const Env = "INTEROP_JOB"

// Job tells a process of a peer, caller or provider, what it needs to know.
type Job struct {
	// Target is where a caller calls, host:port: the host, or the provider itself.
	Target string `json:"target,omitempty"`
	// Prefix stands before the path of each call; empty where the provider is called directly.
	Prefix string `json:"prefix,omitempty"`
	// ID and Token are the runtime identity of a caller; empty without host.
	ID    string `json:"id,omitempty"`
	Token string `json:"token,omitempty"`
	// Dir holds ca.crt, tls.crt and tls.key.
	Dir string `json:"dir"`
	// Present says that a caller shows its certificate.
	Present bool `json:"present,omitempty"`
	// Host, Self, Secret and Type are for the peers that are plugins of this library and enrol themselves.
	Host   string `json:"host,omitempty"`
	Self   string `json:"self,omitempty"`
	Secret string `json:"secret,omitempty"`
	Type   string `json:"type,omitempty"`
	// Streams is how many are open at once, Large the size of a large message in
	// bytes, Silence how long a stream is quiet in ms.
	Streams int `json:"streams"`
	Large   int `json:"large"`
	Silence int `json:"silence"`
	// Life bounds the process, in seconds.
	Life int `json:"life"`
}

// ReadJob reads the job of this process.
func ReadJob() (Job, error) {
	var j Job
	if err := json.Unmarshal([]byte(os.Getenv(Env)), &j); err != nil {
		return j, fmt.Errorf("%s: %w", Env, err)
	}
	return j, nil
}

// Line is what a process of a peer writes to its standard output, one JSON object a line:
// a provider where it listens, a caller that it is ready for what is done to the
// provider, and in the end how the case went.
type Line struct {
	Port  int    `json:"port,omitempty"`
	ID    string `json:"id,omitempty"` // the runtime id of a provider that enrolled itself
	Ready bool   `json:"ready,omitempty"`
	OK    bool   `json:"ok,omitempty"`
	Note  string `json:"note,omitempty"`
	Why   string `json:"why,omitempty"`
}

var errEnded = errors.New("the runner has ended")

// Talk is the conversation of a process with the one that started it. Use it from one goroutine.
type Talk struct {
	in  *bufio.Reader
	out *json.Encoder
}

// NewTalk makes the conversation over standard input and output.
func NewTalk(in io.Reader, out io.Writer) *Talk {
	return &Talk{in: bufio.NewReader(in), out: json.NewEncoder(out)}
}

// Say writes a line.
func (t *Talk) Say(l Line) error {
	if err := t.out.Encode(l); err != nil {
		return fmt.Errorf("say: %w", err)
	}
	return nil
}

// Ready says so and waits until what the case is about has been done to the provider.
// It returns the prefix of calls from then on.
func (t *Talk) Ready() (string, error) {
	if err := t.Say(Line{Ready: true}); err != nil {
		return "", err
	}
	line, err := t.in.ReadString('\n')
	if err != nil {
		return "", errEnded
	}
	return strings.TrimSpace(line), nil
}

// UntilEnd returns a context that ends when the runner has closed the input.
func (t *Talk) UntilEnd(ctx context.Context) context.Context {
	ctx, cancel := context.WithCancelCause(ctx)
	go func() {
		_, _ = io.Copy(io.Discard, t.in)
		cancel(errEnded)
	}()
	return ctx
}
