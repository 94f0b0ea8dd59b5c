#!/usr/bin/env bash
# Guess: a call whose client gets its tokens by golang.org/x/oauth2 ends with its deadline, also while the issuer is asked for the first one or for the next:
# the call has a context, and whoever waits for the token waits with it.
# Seen: a TokenSource of golang.org/x/oauth2 v0.38.0 knows no context of a call. With oauth2.Transport as the transport of connectrpc.com/connect v1.21.1, and
# with credentials/oauth.TokenSource of google.golang.org/grpc v1.85.0, a call with a deadline of 200 ms before an issuer that takes two seconds ends after
# two seconds, with deadline_exceeded, in each protocol, and so does a stream, and a call that is cancelled. Where several calls wait, each waits as long for
# the one question. The issuer is not told that nobody waits any more, and the token is kept: the next call has it.
# Exits with 0 as long as this holds.
set -euo pipefail

dir=$(mktemp -d)
trap 'chmod -R u+w "$dir"; rm -rf "$dir"' EXIT
cd "$dir"
cat > go.mod <<'EOT'
module finding

go 1.26.0

require (
	connectrpc.com/connect v1.21.1
	golang.org/x/oauth2 v0.38.0
	google.golang.org/grpc v1.85.0
	google.golang.org/protobuf v1.36.12
)

require (
	cloud.google.com/go/compute/metadata v0.9.0 // indirect
	golang.org/x/net v0.60.0 // indirect
	golang.org/x/sys v0.48.0 // indirect
	golang.org/x/text v0.42.0 // indirect
	google.golang.org/genproto/googleapis/rpc v0.0.0-20260817212433-ac3dfec99bb1 // indirect
)
EOT
cat > main.go <<'EOT'
package main

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"connectrpc.com/connect"
	"golang.org/x/oauth2"
	"golang.org/x/oauth2/clientcredentials"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/oauth"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

type text = wrapperspb.StringValue

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

const late, soon = 2 * time.Second, 200 * time.Millisecond

var (
	asked, left atomic.Int64
	mu          sync.Mutex
	holds       = true
)

// see says whether a call ended with its deadline, or with the issuer's answer.
func see(name string, ctx func() (context.Context, context.CancelFunc), call func(context.Context) (code string)) {
	c, cancel := ctx()
	defer cancel()
	begin := time.Now()
	code := call(c)
	took := time.Since(begin)
	fmt.Printf("%s: %s, waited for the issuer: %t\n", name, code, took >= late-50*time.Millisecond)
	want := "deadline_exceeded"
	if c.Err() == context.Canceled {
		want = "canceled"
	}
	mu.Lock()
	defer mu.Unlock()
	holds = holds && code == want && took >= late-50*time.Millisecond
}

func deadline() (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.Background(), soon)
}

func cancelled() (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(context.Background())
	time.AfterFunc(soon, cancel)
	return ctx, cancel
}

func main() {
	issuer := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		select {
		case <-r.Context().Done():
			left.Add(1)
		case <-time.After(late):
		}
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprint(w, `{"access_token":"token","token_type":"Bearer","expires_in":3600}`)
	}))
	tokens := func() oauth2.TokenSource {
		config := clientcredentials.Config{ClientID: "plugin", ClientSecret: "secret", TokenURL: issuer.URL}
		return config.TokenSource(context.Background())
	}
	mux := http.NewServeMux()
	mux.Handle("/e.S/One", connect.NewUnaryHandler("/e.S/One", func(context.Context, *connect.Request[text]) (*connect.Response[text], error) {
		return connect.NewResponse(&text{}), nil
	}))
	mux.Handle("/e.S/Many", connect.NewServerStreamHandler("/e.S/Many", func(context.Context, *connect.Request[text], *connect.ServerStream[text]) error { return nil }))
	s := httptest.NewUnstartedServer(mux)
	s.EnableHTTP2 = true
	s.StartTLS()

	client := func() *http.Client {
		return &http.Client{Transport: &oauth2.Transport{Source: tokens(), Base: s.Client().Transport}}
	}
	unary := func(c *http.Client, option connect.ClientOption) func(context.Context) string {
		return func(ctx context.Context) string {
			_, err := connect.NewClient[text, text](c, s.URL+"/e.S/One", option).CallUnary(ctx, connect.NewRequest(&text{}))
			if err == nil {
				return "ok"
			}
			return connect.CodeOf(err).String()
		}
	}
	for name, option := range map[string]connect.ClientOption{"Connect": connect.WithClientOptions(), "gRPC": connect.WithGRPC(), "gRPC-Web": connect.WithGRPCWeb()} {
		see("connect-go, "+name, deadline, unary(client(), option))
	}
	see("connect-go, cancelled", cancelled, unary(client(), connect.WithClientOptions()))
	see("connect-go, a stream", deadline, func(ctx context.Context) string {
		stream, err := connect.NewClient[text, text](client(), s.URL+"/e.S/Many").CallServerStream(ctx, connect.NewRequest(&text{}))
		if err == nil {
			stream.Receive()
			err = stream.Err()
		}
		return connect.CodeOf(err).String()
	})
	before := asked.Load()
	one := client()
	var all sync.WaitGroup
	for range 3 {
		all.Go(func() { see("connect-go, one of three", deadline, unary(one, connect.WithClientOptions())) })
	}
	all.Wait()
	next := unary(one, connect.WithClientOptions())(context.Background())
	fmt.Printf("questions for the three and the next, which is %s: %d; given up: %d\n", next, asked.Load()-before, left.Load())
	holds = holds && next == "ok" && asked.Load() == before+1 && left.Load() == 0

	l := must(net.Listen("tcp", "127.0.0.1:0"))
	g := grpc.NewServer(grpc.Creds(credentials.NewServerTLSFromCert(&s.TLS.Certificates[0])))
	go g.Serve(l)
	ca := s.Client().Transport.(*http.Transport).TLSClientConfig.Clone()
	ca.ServerName = "example.com"
	conn := must(grpc.NewClient(l.Addr().String(), grpc.WithTransportCredentials(credentials.NewTLS(ca)), grpc.WithPerRPCCredentials(oauth.TokenSource{TokenSource: tokens()})))
	see("grpc-go", deadline, func(ctx context.Context) string {
		if err := conn.Invoke(ctx, "/e.S/One", &text{}, &text{}); status.Code(err) == codes.DeadlineExceeded {
			return "deadline_exceeded"
		}
		return "another code"
	})
	if !holds {
		fmt.Println("CHANGED")
		os.Exit(1)
	}
}
EOT
GOFLAGS=-mod=mod GOTOOLCHAIN=local go mod tidy > /dev/null 2>&1
go list -m golang.org/x/oauth2 connectrpc.com/connect google.golang.org/grpc
GOTOOLCHAIN=local go build -o finding .
timeout 120 ./finding
