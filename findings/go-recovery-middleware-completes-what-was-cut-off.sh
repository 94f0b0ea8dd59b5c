#!/usr/bin/env bash
# Guess: what a service broke off in the middle is broken off for the caller, too, whichever recovery middleware stands before the reverse proxy: httputil.ReverseProxy says it by
# panicking with http.ErrAbortHandler, of which net/http's documentation says that it aborts the response, and is no panic to log.
# Seen: with Go 1.26, over HTTP/1.1 and HTTP/2, the RecoveryHandler of github.com/gorilla/handlers v1.5.2, gin.Recovery of github.com/gin-gonic/gin v1.12.0 and the Recovery of
# github.com/urfave/negroni v1.0.0 and v3.1.2 take that panic for one of the program's and end the response as usual: the caller of a body without a length gets status 200, half of
# it and no error, and negroni writes a text of its own behind the half. github.com/go-chi/chi/v5 v5.5.0 (Recoverer) and github.com/labstack/echo v4.16.5 and v5.4.6 (Recover)
# let it through: an error, as without any of them.
# Exits with 0 as long as this holds.
set -euo pipefail

dir=$(mktemp -d)
trap 'chmod -R u+w "$dir"; rm -rf "$dir"' EXIT
cd "$dir"
cat > go.mod <<'EOT'
module finding

go 1.26.0

require (
	github.com/gin-gonic/gin v1.12.0
	github.com/go-chi/chi/v5 v5.5.0
	github.com/gorilla/handlers v1.5.2
	github.com/labstack/echo/v4 v4.16.5
	github.com/labstack/echo/v5 v5.4.6
	github.com/urfave/negroni v1.0.0
	github.com/urfave/negroni/v3 v3.1.2
)
EOT
cat > main.go <<'EOT'
package main

import (
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"time"

	"github.com/gin-gonic/gin"
	"github.com/go-chi/chi/v5/middleware"
	"github.com/gorilla/handlers"
	echo4 "github.com/labstack/echo/v4"
	recover4 "github.com/labstack/echo/v4/middleware"
	echo5 "github.com/labstack/echo/v5"
	recover5 "github.com/labstack/echo/v5/middleware"
	"github.com/urfave/negroni"
	negroni3 "github.com/urfave/negroni/v3"
)

func withGin(h http.Handler) http.Handler {
	e := gin.New()
	e.Use(gin.Recovery())
	e.GET("/", gin.WrapH(h))
	return e
}

func withEcho4(h http.Handler) http.Handler {
	e := echo4.New()
	e.Use(recover4.Recover())
	e.GET("/", echo4.WrapHandler(h))
	return e
}

func withEcho5(h http.Handler) http.Handler {
	e := echo5.New()
	e.Use(recover5.Recover())
	e.GET("/", echo5.WrapHandler(h))
	return e
}

func withNegroni(h http.Handler) http.Handler {
	recovery := negroni.NewRecovery()
	recovery.PrintStack, recovery.Logger = false, log.Default()
	n := negroni.New(recovery)
	n.UseHandler(h)
	return n
}

func withNegroni3(h http.Handler) http.Handler {
	recovery := negroni3.NewRecovery()
	recovery.PrintStack, recovery.Logger = false, log.Default()
	n := negroni3.New(recovery)
	n.UseHandler(h)
	return n
}

func get(h http.Handler, http2 bool) {
	s := httptest.NewUnstartedServer(h)
	defer s.Close()
	s.Config.ErrorLog = log.Default()
	s.EnableHTTP2 = http2
	s.StartTLS()
	client := s.Client()
	client.Timeout = time.Minute
	res, err := client.Get(s.URL)
	if err != nil {
		panic(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	fmt.Printf(", %s %d %q, error %v", res.Proto, res.StatusCode, body, err != nil)
}

func main() {
	log.SetOutput(io.Discard)
	gin.SetMode(gin.ReleaseMode)
	gin.DefaultErrorWriter = io.Discard
	service := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		io.WriteString(w, "half")
		http.NewResponseController(w).Flush()
		panic(http.ErrAbortHandler)
	}))
	service.Config.ErrorLog = log.Default()
	service.Start()
	defer service.Close()
	target, err := url.Parse(service.URL)
	if err != nil {
		panic(err)
	}
	proxy := &httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(target) }, ErrorLog: log.Default()}
	for _, m := range []struct {
		name string
		wrap func(http.Handler) http.Handler
	}{
		{"nothing", func(h http.Handler) http.Handler { return h }},
		{"gorilla", handlers.RecoveryHandler(handlers.RecoveryLogger(log.Default()))},
		{"gin", withGin},
		{"negroni", withNegroni},
		{"negroni v3", withNegroni3},
		{"chi", middleware.Recoverer},
		{"echo v4", withEcho4},
		{"echo v5", withEcho5},
	} {
		fmt.Print(m.name)
		get(m.wrap(proxy), false)
		get(m.wrap(proxy), true)
		fmt.Println()
	}
}
EOT
GOFLAGS=-mod=mod GOTOOLCHAIN=local go mod tidy > /dev/null 2>&1
go list -m github.com/gorilla/handlers github.com/gin-gonic/gin github.com/urfave/negroni github.com/urfave/negroni/v3 github.com/go-chi/chi/v5 github.com/labstack/echo/v4 github.com/labstack/echo/v5
GOTOOLCHAIN=local timeout 300 go run . 2> log | tee seen
cat > want <<'EOT'
nothing, HTTP/1.1 200 "half", error true, HTTP/2.0 200 "half", error true
gorilla, HTTP/1.1 200 "half", error false, HTTP/2.0 200 "half", error false
gin, HTTP/1.1 200 "half", error false, HTTP/2.0 200 "half", error false
negroni, HTTP/1.1 200 "halfPANIC: net/http: abort Handler\n", error false, HTTP/2.0 200 "halfPANIC: net/http: abort Handler\n", error false
negroni v3, HTTP/1.1 200 "half500 Internal Server Error", error false, HTTP/2.0 200 "half500 Internal Server Error", error false
chi, HTTP/1.1 200 "half", error true, HTTP/2.0 200 "half", error true
echo v4, HTTP/1.1 200 "half", error true, HTTP/2.0 200 "half", error true
echo v5, HTTP/1.1 200 "half", error true, HTTP/2.0 200 "half", error true
EOT
cmp -s seen want || { cat log; echo CHANGED; exit 1; }
