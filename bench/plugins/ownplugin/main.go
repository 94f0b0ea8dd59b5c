// Command ownplugin is the plugin of this library in bench-plugins. Its argument is the type
// of its service.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/wrapperspb"

	connectplugin "github.com/masegraye/connect-plugin-go"
)

const say = "/bench.v1.Echo/Say"

// leastSize is how long a message is that is worth compressing.
const leastSize = 1 << 10

// collect is what a message says that has the plugin collect garbage, and give back what is free.
const collect = "collect"

type text = wrapperspb.StringValue

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := connectplugin.ServePlugin(ctx, &connectplugin.PluginServerConfig{
		Services: []connectplugin.PluginService{{
			Type: os.Args[1], Version: "1.0.0", Path: "/bench.v1.Echo/",
			Handler: connect.NewUnaryHandler(say, answer, connect.WithCompressMinBytes(leastSize)),
		}},
	})
	if err != nil {
		stop()
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	} // otherwise the process ends, and gives no signal back before: that takes 0.3 ms
}

func answer(_ context.Context, req *connect.Request[text]) (*connect.Response[text], error) {
	if req.Msg.GetValue() == collect {
		debug.FreeOSMemory()
	}
	return connect.NewResponse(req.Msg), nil
}
