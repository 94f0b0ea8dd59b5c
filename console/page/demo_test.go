//go:build unix

package page_test

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net/http"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/masegraye/connect-plugin-go/internal/hosttest"
)

// demo is the url shortener as `make demo` runs it, and what it says of how to look.
type demo struct{ link, scrape, command string }

// startDemo builds and starts it, and ends it with the test, which leaves nothing behind.
func startDemo(t *testing.T) demo {
	t.Helper()
	program := filepath.Join(t.TempDir(), "demo")
	build := exec.CommandContext(t.Context(), "go", "build", "-o", program, "./urlshortener/cmd/demo")
	build.Dir = "../../examples"
	if text, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, text)
	}
	cmd := exec.CommandContext(context.WithoutCancel(t.Context()), program, "-stay", "1h")
	cmd.Dir = build.Dir
	cmd.Env = append(cmd.Environ(), "TMPDIR="+t.TempDir())
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	var d demo
	var said strings.Builder
	lines := bufio.NewScanner(out)
	for lines.Scan() && d.command == "" {
		said.WriteString(lines.Text() + "\n")
		for what, to := range map[string]*string{"in a browser": &d.link, "as a scrape": &d.scrape, "in a shell": &d.command} {
			if _, after, ok := strings.Cut(lines.Text(), what); ok {
				*to = strings.TrimSpace(after)
			}
		}
	}
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGINT)
		rest, _ := io.ReadAll(out)
		if err := cmd.Wait(); !strings.Contains(string(rest), "processes left over: 0   files left over: 0") {
			t.Errorf("the demo ended with %v and said\n%s%s", err, said.String(), rest)
		}
	})
	if d.command == "" {
		t.Fatalf("the demo does not say how to look:\n%s", said.String())
	}
	return d
}

// Who runs the demo sees calls, errors and latency of each edge in a browser, in a scrape and in a
// shell, as the demo says.
func TestDemo(t *testing.T) {
	t.Parallel()
	chromium := chromium(t)
	d := startDemo(t)
	b := openBrowser(t, chromium, d.link)
	edge := func(caller, provider string) string {
		return b.evaluate(t, `String([...document.querySelectorAll("#edges tbody tr")].filter((tr) => tr.cells[0].textContent === "`+caller+
			`" && tr.cells[1].textContent === "`+provider+`").map((tr) => [...tr.cells].slice(4).map((c) => c.textContent).join("|"))[0])`)
	}
	hosttest.Eventually(t, "the browser shows the calls and what fails", func() bool {
		failed := strings.Split(edge("api", "logger"), "|")
		return strings.Contains(edge("demo", "api"), " ms|") && strings.Contains(edge("api", "storage"), " ms|") && len(failed) > 1 && failed[1] != "0"
	})
	b.screenshots(t, "demo")
	if graph := b.evaluate(t, `document.getElementById("graph").textContent`); !strings.Contains(graph, "shortener: ") || !strings.Contains(graph, "99% ≤") {
		t.Errorf("graph: %s", graph)
	}
	b.width(t, 1280)
	b.screenshots(t, "demo-1280")
	b.narrow(t, "demo-400")
	command := exec.CommandContext(t.Context(), "sh", "-c", d.command)
	if table, err := command.CombinedOutput(); err != nil || !strings.Contains(string(table), "storage") {
		t.Errorf("%s: %v, %s", d.command, err, table)
	}
	url := strings.Fields(d.scrape)[2]
	text := scrape(t, url)
	for _, want := range []string{
		`rpc_server_call_duration_seconds_bucket{connectplugin_caller="api",connectplugin_provider="storage",connectplugin_type="storage"`,
		`rpc_server_call_duration_seconds_count{connectplugin_caller="api",connectplugin_provider="logger",connectplugin_type="logger",error_type="unavailable"`,
	} {
		if !strings.Contains(text, want) {
			t.Errorf("the scrape has no %s in\n%s", want, text)
		}
	}
}

func scrape(t *testing.T, url string) string {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	res, err := browser(t).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	text, err := io.ReadAll(res.Body)
	if err = errors.Join(err, res.Body.Close()); err != nil {
		t.Fatal(err)
	}
	return string(text)
}
