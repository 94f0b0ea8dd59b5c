package page_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/net/websocket"

	"github.com/masegraye/connect-plugin-go/internal/hosttest"
)

// chrome is a headless browser that shows one page, spoken to over its DevTools protocol.
type chrome struct {
	ws   *websocket.Conn
	id   int
	port string // of the browser's DevTools
}

// mostTemp is how long the name of a directory for temporary files may be in which a browser begins: it
// listens on a socket there.
const mostTemp = 50

// profileDir is the directory of a new browser's profile.
func profileDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "page") //nolint:usetesting // the browser may still write into it when the test ends
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// openBrowser starts a browser with a page, and ends it with the test.
func openBrowser(t *testing.T, program, url string) *chrome {
	t.Helper()
	return openProfile(t, program, profileDir(t), url)
}

// openProfile does that with a profile, which it removes in the end, and with what else the
// browser's environment has.
func openProfile(t *testing.T, program, dir, url string, env ...string) *chrome {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	cmd := exec.CommandContext(ctx, program, "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
		"--disable-background-networking", "--force-device-scale-factor=1", "--window-size=1400,1700", "--user-data-dir="+dir, "--remote-debugging-port=0", "--remote-allow-origins=*", url)
	cmd.Env = append(os.Environ(), env...)
	if len(os.TempDir()) > mostTemp {
		cmd.Env = append(cmd.Env, "TMPDIR=/tmp")
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cancel()
		_ = cmd.Wait()
		_ = os.RemoveAll(dir)
	})
	b := &chrome{}
	hosttest.Eventually(t, "the browser listens", func() bool {
		text, _ := os.ReadFile(filepath.Join(dir, "DevToolsActivePort"))
		first, _, ok := strings.Cut(string(text), "\n")
		b.port = first
		return ok
	})
	b.attach(t, func(tab) bool { return true })
	return b
}

// tab is what a browser says of one.
type tab struct{ ID, Type, URL, WebSocketDebuggerURL string }

// attach begins to speak to a tab that shows something of this machine.
func (b *chrome) attach(t *testing.T, wanted func(tab) bool) {
	t.Helper()
	hosttest.Eventually(t, "the browser has the page", func() bool {
		res, err := http.Get("http://127.0.0.1:" + b.port + "/json/list")
		if err != nil {
			return false
		}
		var pages []tab
		err = json.NewDecoder(res.Body).Decode(&pages)
		_ = res.Body.Close()
		for _, p := range pages {
			if err == nil && p.Type == "page" && strings.Contains(p.URL, "://127.0.0.1") && wanted(p) {
				b.ws, err = websocket.Dial(p.WebSocketDebuggerURL, "", "http://127.0.0.1")
				return err == nil
			}
		}
		return false
	})
	http.DefaultClient.CloseIdleConnections()
	t.Cleanup(func() { _ = b.ws.Close() })
	b.call(t, "Page.enable", map[string]any{}, &struct{}{})
}

// another opens another tab of the same browser.
func (b *chrome) another(t *testing.T, url string) *chrome {
	t.Helper()
	var made struct{ TargetID string }
	b.call(t, "Target.createTarget", map[string]any{"url": url}, &made)
	second := &chrome{port: b.port}
	second.attach(t, func(p tab) bool { return p.ID == made.TargetID })
	return second
}

// visit goes to an address.
func (b *chrome) visit(t *testing.T, url string) {
	t.Helper()
	b.call(t, "Page.navigate", map[string]any{"url": url}, &struct{}{})
}

// status is what the page says of its connection.
func (b *chrome) status(t *testing.T) string {
	t.Helper()
	return b.evaluate(t, `String(document.getElementById("status")?.textContent)`)
}

// call calls a method of the browser and decodes its result.
func (b *chrome) call(t *testing.T, method string, params, result any) {
	t.Helper()
	b.id++
	if err := websocket.JSON.Send(b.ws, map[string]any{"id": b.id, "method": method, "params": params}); err != nil {
		t.Fatal(err)
	}
	for {
		var m struct {
			ID     int
			Method string
			Result json.RawMessage
			Error  json.RawMessage
		}
		if err := websocket.JSON.Receive(b.ws, &m); err != nil {
			t.Fatal(err)
		}
		switch {
		case m.Method == "Page.javascriptDialogOpening": // nothing goes on before somebody says yes
			accept := map[string]any{"id": -1, "method": "Page.handleJavaScriptDialog", "params": map[string]any{"accept": true}}
			if err := websocket.JSON.Send(b.ws, accept); err != nil {
				t.Fatal(err)
			}
		case m.ID != b.id: // an event
		case bytes.Contains(m.Error, []byte("Cannot find default execution context")),
			bytes.Contains(m.Error, []byte("Inspected target navigated or closed")):
			return // between two pages there is nothing to look at
		case len(m.Error) > 0:
			t.Fatalf("%s: %s", method, m.Error)
		default:
			if err := json.NewDecoder(bytes.NewReader(m.Result)).Decode(result); err != nil {
				t.Fatal(err)
			}
			return
		}
	}
}

// evaluate evaluates an expression that is a string.
func (b *chrome) evaluate(t *testing.T, expression string) string {
	t.Helper()
	var out struct{ Result struct{ Value string } }
	b.call(t, "Runtime.evaluate", map[string]any{"expression": expression}, &out)
	return out.Result.Value
}

// press presses a key.
func (b *chrome) press(t *testing.T, key string, code int, text string) {
	t.Helper()
	for _, what := range []string{"keyDown", "keyUp"} {
		event := map[string]any{"type": what, "key": key, "code": key, "windowsVirtualKeyCode": code}
		if what == "keyDown" && text != "" {
			event["text"] = text
		}
		b.call(t, "Input.dispatchKeyEvent", event, &struct{}{})
	}
}

func (b *chrome) tab(t *testing.T)   { t.Helper(); b.press(t, "Tab", 9, "") }
func (b *chrome) enter(t *testing.T) { t.Helper(); b.press(t, "Enter", 13, "\r") }

// scheme has the browser prefer light or dark.
func (b *chrome) scheme(t *testing.T, scheme string) {
	t.Helper()
	b.call(t, "Emulation.setEmulatedMedia", map[string]any{
		"features": []map[string]any{{"name": "prefers-color-scheme", "value": scheme}},
	}, &struct{}{})
}

// width makes the window so wide, in pixels.
func (b *chrome) width(t *testing.T, pixels int) {
	t.Helper()
	b.call(t, "Emulation.setDeviceMetricsOverride", map[string]any{
		"width": pixels, "height": 900, "deviceScaleFactor": 1, "mobile": false,
	}, &struct{}{})
}

// named is an element as a screen reader has it.
type named struct{ role, name string }

// accessible is what a screen reader has of the page.
func (b *chrome) accessible(t *testing.T) []named {
	t.Helper()
	var tree struct {
		Nodes []struct {
			Ignored    bool
			Role, Name struct{ Value any }
		}
	}
	b.call(t, "Accessibility.getFullAXTree", map[string]any{}, &tree)
	var out []named
	for _, n := range tree.Nodes {
		if !n.Ignored {
			role, _ := n.Role.Value.(string)
			name, _ := n.Name.Value.(string)
			out = append(out, named{role, name})
		}
	}
	return out
}

// screenshots writes pictures of the page, light and dark, where CONSOLE_SCREENSHOTS names a directory.
func (b *chrome) screenshots(t *testing.T, name string) {
	t.Helper()
	dir := os.Getenv("CONSOLE_SCREENSHOTS")
	for _, scheme := range []string{"light", "dark"} {
		if dir != "" {
			b.scheme(t, scheme)
			b.screenshot(t, filepath.Join(dir, name+"-"+scheme+".png"))
		}
	}
}

func (b *chrome) screenshot(t *testing.T, path string) {
	t.Helper()
	var out struct{ Data string }
	b.call(t, "Page.captureScreenshot", map[string]any{"format": "png", "captureBeyondViewport": true}, &out)
	png, err := base64.StdEncoding.DecodeString(out.Data)
	if err == nil {
		err = os.WriteFile(filepath.Clean(path), png, 0o600)
	}
	if err != nil {
		t.Error(err)
	}
}
