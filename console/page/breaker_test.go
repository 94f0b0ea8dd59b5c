package page_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/masegraye/connect-plugin-go/internal/hosttest"
)

// follow opens the live stream and tells when it ends.
func follow(t *testing.T, r *rig, c *http.Client) (ended chan error) {
	t.Helper()
	res, err := c.Get(r.base + "/events")
	if err != nil || res.StatusCode != http.StatusOK {
		t.Fatal(res, err)
	}
	ended = make(chan error, 1)
	b := bufio.NewReader(res.Body)
	_, _ = b.ReadString('\n')
	go func() {
		_, err := io.Copy(io.Discard, b)
		_ = res.Body.Close()
		ended <- err
	}()
	return ended
}

// A stranger on the machine, without a link, cannot cut off the stream of an operator who is in.
func TestBreaker_CrowdDoesNotBlindTheOperator(t *testing.T) {
	for name, says := range map[string]string{
		"half a head": "GET / HTTP/1.1\r\nHost: x\r\n", "a byte": "G",
		"a body that never comes": "POST /enter HTTP/1.1\r\nHost: %[1]s\r\nOrigin: http://%[1]s\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{",
		"nothing":                 "",
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, false)
			c := browser(t)
			r.enter(t, c)
			ended := follow(t, r, c)
			addr := strings.TrimPrefix(r.base, "http://")
			if strings.Contains(says, "%") {
				says = fmt.Sprintf(says, addr)
			}
			for range 100 {
				k, err := net.Dial("tcp", addr)
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { _ = k.Close() })
				_, _ = io.WriteString(k, says)
				time.Sleep(2 * time.Millisecond)
			}
			select {
			case err := <-ended:
				t.Errorf("the operator's stream was cut off: %v", err)
			case <-time.After(2 * time.Second):
			}
		})
	}
}

// Another server on the machine, on another port, gets nothing that opens the page.
func TestBreaker_AnotherPortGetsTheSession(t *testing.T) {
	t.Skip("open: cookies do not know ports; it needs a secret that only the page's own origin can read")
	r := newRig(t, true)
	got := make(chan string, 10)
	l := hosttest.Listen(t)
	evil := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		w.Header().Set("Content-Type", "text/html")
		_, _ = io.WriteString(w, "<title>evil</title>")
		if q.Header.Get("Cookie") != "" {
			select {
			case got <- q.Header.Get("Cookie"):
			default:
			}
		}
	})}
	go func() { _ = evil.Serve(l) }()
	t.Cleanup(func() { _ = evil.Close() })
	b := openBrowser(t, chromium(t), r.page.Link())
	hosttest.Eventually(t, "live", func() bool { return b.evaluate(t, `String(document.getElementById("status")?.textContent)`) == "live" })
	b.call(t, "Page.navigate", map[string]any{"url": "http://" + l.Addr().String() + "/"}, &struct{}{})
	select {
	case cookie := <-got:
		req, _ := http.NewRequest(http.MethodPost, r.base+"/change", strings.NewReader(`{"action":"revoke","name":"victim"}`))
		req.Header.Set("Cookie", cookie)
		req.Header.Set("Origin", r.base)
		req.Header.Set("Content-Type", "application/json")
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		_ = res.Body.Close()
		t.Errorf("the other server got %.30s…, and revokes with it: %s", cookie, res.Status)
	case <-time.After(5 * time.Second):
		t.Log("no cookie")
	}
}

// A HEAD holds no stream: there is room for eight.
func TestBreaker_HeadHoldsNoStream(t *testing.T) {
	r := newRig(t, false)
	c := browser(t)
	r.enter(t, c)
	for i := range 12 {
		req, _ := http.NewRequestWithContext(t.Context(), http.MethodHead, r.base+"/events", nil)
		req.Close = true
		res, err := c.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		_ = res.Body.Close()
		if res.StatusCode != http.StatusMethodNotAllowed {
			t.Errorf("HEAD %d: %s", i, res.Status)
		}
	}
	if code, text := r.ask(t, c, http.MethodGet, "/events", "", nil); code != 200 {
		t.Errorf("after: %d %s", code, text)
	}
}

// A thousand streams, with and without a session.
func TestBreaker_ThousandStreams(t *testing.T) {
	r := newRig(t, false)
	in, out := browser(t), browser(t)
	for i := range 1000 {
		if code, _ := r.ask(t, out, http.MethodGet, "/events", "", nil); code != 401 {
			t.Fatal(i, code)
		}
	}
	r.enter(t, in)
	codes := map[int]int{}
	for range 1000 {
		res, err := in.Get(r.base + "/events")
		if err != nil {
			codes[-1]++
			continue
		}
		codes[res.StatusCode]++
		if res.StatusCode == 200 {
			t.Cleanup(func() { _ = res.Body.Close() })
		} else {
			_ = res.Body.Close()
		}
	}
	t.Log(codes)
	if codes[200] != 8 {
		t.Error(codes)
	}
}

// Requests as they could be written by hand.
func TestBreaker_Raw(t *testing.T) {
	r := newRig(t, true)
	c := browser(t)
	r.enter(t, c)
	addr := strings.TrimPrefix(r.base, "http://")
	req, _ := http.NewRequest("GET", r.base, nil)
	cookie := ""
	for _, k := range c.Jar.Cookies(req.URL) {
		cookie = k.Name + "=" + k.Value
	}
	body := `{"action":"revoke","name":"later"}`
	post := func(h string) string {
		return "POST /change HTTP/1.1\r\nHost: " + addr + "\r\nCookie: " + cookie + "\r\n" + h + fmt.Sprintf("Content-Length: %d\r\nConnection: close\r\n\r\n%s", len(body), body)
	}
	for name, text := range map[string]string{
		"absolute uri of another host":     "GET http://evil.example/events HTTP/1.1\r\nHost: " + addr + "\r\nCookie: " + cookie + "\r\nConnection: close\r\n\r\n",
		"1.0 no host":                      "GET / HTTP/1.0\r\n\r\n",
		"trailing dot":                     "GET / HTTP/1.1\r\nHost: localhost.:" + addr[strings.LastIndex(addr, ":")+1:] + "\r\nConnection: close\r\n\r\n",
		"user in host":                     "GET / HTTP/1.1\r\nHost: " + addr + "@evil\r\nConnection: close\r\n\r\n",
		"two hosts":                        "GET / HTTP/1.1\r\nHost: " + addr + "\r\nHost: evil\r\nConnection: close\r\n\r\n",
		"options preflight":                "OPTIONS /change HTTP/1.1\r\nHost: " + addr + "\r\nOrigin: https://evil.example\r\nAccess-Control-Request-Method: POST\r\nConnection: close\r\n\r\n",
		"put":                              strings.Replace(post("Origin: http://"+addr+"\r\nContent-Type: application/json\r\n"), "POST", "PUT", 1),
		"get with a body":                  strings.Replace(post("Origin: http://"+addr+"\r\nContent-Type: application/json\r\n"), "POST", "GET", 1),
		"override":                         strings.Replace(post("X-HTTP-Method-Override: POST\r\nOrigin: http://"+addr+"\r\nContent-Type: application/json\r\n"), "POST", "GET", 1),
		"origin of upper case":             post("Origin: HTTP://" + addr + "\r\nContent-Type: application/json\r\n"),
		"origin with slash":                post("Origin: http://" + addr + "/\r\nContent-Type: application/json\r\n"),
		"origin localhost, host ip":        post("Origin: http://localhost:" + addr[strings.LastIndex(addr, ":")+1:] + "\r\nContent-Type: application/json\r\n"),
		"empty origin":                     post("Origin: \r\nContent-Type: application/json\r\n"),
		"sec-fetch cross and right origin": post("Origin: http://" + addr + "\r\nSec-Fetch-Site: cross-site\r\nContent-Type: application/json\r\n"),
		"urlencoded":                       post("Origin: http://" + addr + "\r\nContent-Type: application/x-www-form-urlencoded\r\n"),
		"multipart":                        post("Origin: http://" + addr + "\r\nContent-Type: multipart/form-data; boundary=x\r\n"),
		"no content type":                  post("Origin: http://" + addr + "\r\n"),
		"plain, then json":                 post("Origin: http://" + addr + "\r\nContent-Type: text/plain\r\nContent-Type: application/json\r\n"),
		"path dots":                        "POST /x/../change HTTP/1.1" + post("Origin: http://" + addr + "\r\nContent-Type: application/json\r\n")[len("POST /change HTTP/1.1"):],
	} {
		k, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		_ = k.SetDeadline(time.Now().Add(5 * time.Second))
		_, _ = io.WriteString(k, text)
		res, err := http.ReadResponse(bufio.NewReader(k), nil)
		if err != nil {
			t.Logf("%-34s %v", name, err)
			continue
		}
		framed := res.Header.Get("X-Frame-Options") == "DENY" && strings.Contains(res.Header.Get("Content-Security-Policy"), "frame-ancestors 'none'")
		t.Logf("%-34s %s, framing refused: %v, cors %q", name, res.Status, framed, res.Header.Get("Access-Control-Allow-Origin"))
		if res.StatusCode < 300 {
			t.Errorf("%s: %s", name, res.Status)
		}
		_ = k.Close()
	}
}
