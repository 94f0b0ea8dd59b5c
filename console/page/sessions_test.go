package page_test

import (
	"encoding/json"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/masegraye/connect-plugin-go/console/page"
)

// entry is what a browser that is in has.
type entry struct{ cookie, key string }

// post sends what the page sends, with what it has, and returns the status and what it has afterwards.
func post(s *page.Server, path, body string, has entry) (status int, set entry) {
	q := httptest.NewRequest(http.MethodPost, "http://127.0.0.1:8080"+path, strings.NewReader(body))
	q.Header.Set("Origin", "http://127.0.0.1:8080")
	q.Header.Set("Content-Type", "application/json")
	q.Header.Set("Cookie", has.cookie)
	q.Header.Set(keyHeader, has.key)
	w := httptest.NewRecorder()
	s.Handler().ServeHTTP(w, q)
	set.cookie, _, _ = strings.Cut(w.Header().Get("Set-Cookie"), ";")
	_ = json.Unmarshal(w.Body.Bytes(), &struct{ Key *string }{&set.key})
	return w.Code, set
}

func use(s *page.Server, link string) (status int, has entry) {
	_, token, _ := strings.Cut(link, "#")
	return post(s, "/enter", `{"token":"`+token+`"}`, entry{})
}

// A link ends after ten minutes and a session after twelve hours, or when there are sixteen later ones.
func TestLinksAndSessionsEnd(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s, err := page.New(page.Config{}, &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 8080})
		if err != nil {
			t.Fatal(err)
		}
		first, later := s.Link(), s.Link()
		time.Sleep(9 * time.Minute)
		status, has := use(s, first)
		if status != http.StatusOK || has.cookie == "" || has.key == "" {
			t.Fatalf("in time: %d, %q", status, has)
		}
		time.Sleep(2 * time.Minute)
		if status, _ := use(s, later); status != http.StatusForbidden {
			t.Errorf("after 11 minutes: %d", status)
		}
		in := func() bool {
			status, _ := post(s, "/change", `{"action":"drain","name":"x"}`, has)
			return status == http.StatusForbidden // it is read-only, and says so to nobody else
		}
		if time.Sleep(11 * time.Hour); !in() {
			t.Error("the session is over after 11 hours")
		}
		if time.Sleep(2 * time.Hour); in() {
			t.Error("the session goes on after 13 hours")
		}
		if status, has = use(s, s.Link()); status != http.StatusOK {
			t.Fatalf("a new one: %d", status)
		}
		for range 15 {
			time.Sleep(time.Second)
			if status, _ := use(s, s.Link()); status != http.StatusOK || !in() {
				t.Errorf("one of sixteen: %d, and the first is in: %v", status, in())
			}
		}
		if status, _ := use(s, s.Link()); status != http.StatusOK || in() {
			t.Errorf("the seventeenth: %d, and the first is in: %v", status, in())
		}
	})
}

// Requests that the page would not make are refused, and change nothing.
func TestMalformedRequests(t *testing.T) {
	t.Parallel()
	s, err := page.New(page.Config{}, &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 8080})
	if err != nil {
		t.Fatal(err)
	}
	_, token, _ := strings.Cut(s.Link(), "#")
	for name, body := range map[string]string{
		"a field more": `{"token":"` + token + `","admin":true}`, "no JSON": token, "nothing": "",
		"too long": `{"token":"` + token + `","x":"` + strings.Repeat("x", 8<<10) + `"}`, "too long a token": `{"token":"` + strings.Repeat("x", 8<<10) + `"}`,
	} {
		if status, _ := post(s, "/enter", body, entry{}); status != http.StatusBadRequest {
			t.Errorf("%s: %d", name, status)
		}
	}
	if status, _ := post(s, "/enter", `{"token":"`+token+`"}`, entry{}); status != http.StatusOK {
		t.Errorf("the link itself afterwards: %d", status)
	}
}
