package page

import (
	"encoding/json"
	"mime"
	"net/http"
	"slices"
	"time"
)

// guard refuses requests under another name, as a page that was rebound to loopback makes them, and
// those that another page makes.
func (s *Server) guard(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		for name, value := range policyHeaders {
			w.Header().Set(name, value)
		}
		if !slices.Contains(s.hosts, r.Host) {
			http.Error(w, "this page has another name", http.StatusMisdirectedRequest)
			return
		}
		own := s.scheme + r.Host
		origins := r.Header.Values("Origin")
		foreign := len(origins) > 1 || len(origins) == 1 && origins[0] != own
		if r.Method != http.MethodGet && r.Method != http.MethodHead && len(origins) != 1 {
			foreign = true // browsers always say who changes something
		}
		if site := r.Header.Get("Sec-Fetch-Site"); site == "cross-site" || site == "same-site" {
			foreign = true
		}
		if foreign {
			http.Error(w, "another page asks", http.StatusForbidden)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// read reads the JSON of a request into v. Forms of other pages cannot be JSON.
func read(w http.ResponseWriter, r *http.Request, v any) bool {
	kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if err != nil || kind != "application/json" {
		http.Error(w, "send application/json", http.StatusUnsupportedMediaType)
		return false
	}
	out := http.NewResponseController(w)
	_ = out.SetReadDeadline(time.Now().Add(headerWait)) // a recorder of tests has none
	defer func() { _ = out.SetReadDeadline(time.Time{}) }()
	d := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxBody))
	d.DisallowUnknownFields()
	if d.Decode(v) != nil {
		http.Error(w, "malformed", http.StatusBadRequest)
		return false
	}
	return true
}
