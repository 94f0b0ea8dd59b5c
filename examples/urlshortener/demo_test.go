//go:build unix

package urlshortener_test

import (
	"context"
	"errors"
	"os"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/masegraye/connect-plugin-go/examples/urlshortener/data"
	"github.com/masegraye/connect-plugin-go/examples/urlshortener/internal/demo"
)

// screen keeps what people would see, and calls back at a certain text.
type screen struct {
	t    *testing.T
	at   string
	call func()

	mu   sync.Mutex
	text strings.Builder
}

func (s *screen) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.t.Log(strings.TrimRight(string(p), "\n"))
	s.text.Write(p)

	if s.at != "" && strings.Contains(string(p), s.at) {
		s.call()
	}

	return len(p), nil
}

func (s *screen) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()

	return s.text.String()
}

// sample returns every tenth URL, and those before them again.
func sample() []string {
	var urls []string

	for i, url := range data.URLs() {
		if i%10 == 0 {
			urls = append(urls, url)
		}
	}

	return append(urls, urls[:20]...)
}

// runDemo runs the demo and fails the test if it leaves anything behind.
func runDemo(ctx context.Context, t *testing.T, out *screen) error {
	t.Helper()

	tmp := t.TempDir()
	t.Setenv("TMPDIR", tmp)

	err := demo.Run(ctx, demo.Config{URLs: sample(), Out: out, Bin: bin, Stay: time.Second / 2})

	left, readErr := os.ReadDir(tmp)
	if readErr != nil || len(left) > 0 {
		t.Errorf("files left over: %v, %v", left, readErr)
	}

	if want := "processes left over: 0   files left over: 0"; !strings.Contains(out.String(), want) {
		t.Errorf("the screen does not say %q", want)
	}

	return err
}

func TestDemo(t *testing.T) {
	out := &screen{t: t}
	if err := runDemo(t.Context(), t, out); err != nil {
		t.Fatal(err)
	}

	for _, want := range []string{
		`(?s)api is AVAILABLE.*kill -KILL logger.*api is DEGRADED.*goes on.*api is AVAILABLE.*storage.*api is DEGRADED.*api is AVAILABLE`,
		`in a browser +http://127\.0\.0\.1:\d+/#\S{40}`, `as a scrape +curl -s http://127\.0\.0\.1:\d+/metrics`,
		`(?s)\$ connectpluginctl plugins.*storage-.*\$ connectpluginctl calls.*demo +api +shortener +\d+ `,
		`everything goes on for 500ms`, `as the metrics of the hosts say:`,
		`dropped meanwhile: [1-9]`,
		`arrived at the new logger: [1-9]`,
		`resolve, storage restarted +150 +0 `,
		`(?s)storage and api launched.*kill -KILL storage.*started it again.*api replaced.*tampered api is refused`,
		`resolve, storage crashed +\d+ +0 `,
		`resolve, api replaced 3 times +\d+ +0 `,
		`total +\d+ +0 `,
	} {
		if !regexp.MustCompile(want).MatchString(out.String()) {
			t.Errorf("the screen does not match %q", want)
		}
	}
}

func TestDemo_Interrupted(t *testing.T) {
	for name, at := range map[string]string{
		"before the host": "a fresh authority", "between calls": "  shorten: ", "without logger": "kill -KILL logger",
		"while the host launches": "the second act",
	} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()

			err := runDemo(ctx, t, &screen{t: t, at: at, call: cancel})
			if !errors.Is(err, context.Canceled) {
				t.Errorf("Run = %v, want context.Canceled", err)
			}
		})
	}
}
