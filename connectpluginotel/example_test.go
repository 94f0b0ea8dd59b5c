package connectpluginotel_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"runtime"
	"strings"

	connectplugin "github.com/masegraye/connect-plugin-go"
	"github.com/masegraye/connect-plugin-go/connectpluginotel"
)

// A host whose metrics Prometheus scrapes. Nobody has called it yet.
func ExampleNewPrometheus() {
	observer, err := connectpluginotel.NewPrometheus(connectpluginotel.Config{})
	if err != nil {
		fmt.Println(err)
		return
	}
	authority, err := connectplugin.NewAuthority(connectplugin.AuthorityConfig{TrustDomain: "shop.example"})
	if err != nil {
		fmt.Println(err)
		return
	}
	//docs:region host
	host, err := connectplugin.NewHost(&connectplugin.ServeConfig{
		Addr: "127.0.0.1:0", Authority: authority, Policy: &connectplugin.Policy{},
		Observer:    observer,
		MetricsAddr: "127.0.0.1:0", // 127.0.0.1:9464 is usual
		Metrics:     observer.Handler(),
	})
	//docs:end
	if err != nil {
		fmt.Println(err)
		return
	}
	if _, err := observer.Host(host); err != nil { // what the host holds, too
		fmt.Println(err)
		return
	}
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	ended := make(chan error, 1)
	go func() { ended <- host.ListenAndServe(ctx) }()
	for host.MetricsAddr() == "" {
		runtime.Gosched() // until it serves; a program of yours has no need to wait
	}

	resp, err := http.Get("http://" + host.MetricsAddr() + "/metrics")
	if err != nil {
		fmt.Println(err)
		return
	}
	text, err := io.ReadAll(resp.Body)
	_ = resp.Body.Close()
	fmt.Println(resp.StatusCode, strings.Contains(string(text), `connectplugin_resource="identities"`), err)

	stop()
	fmt.Println(<-ended, observer.Shutdown(context.Background()))
	http.DefaultClient.CloseIdleConnections()
	// Output:
	// 200 true <nil>
	// <nil> <nil>
}
