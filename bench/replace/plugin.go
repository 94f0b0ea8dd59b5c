package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/wrapperspb"

	connectplugin "github.com/masegraye/connect-plugin-go"
)

const (
	echoName   = "echo" // of the plugin, and of the type of its service
	echoPath   = "/bench.v1.Echo/"
	echoSay    = echoPath + "Say"
	echoStream = echoPath + "Stream"

	// takenOver is what the plugin tells its streams when it is asked to stop.
	takenOver = "another instance takes over"
)

type text = wrapperspb.StringValue

// plugin is the plugin that is replaced. Its streams go on until it is asked to stop.
func plugin(ctx context.Context) error {
	mux := http.NewServeMux()
	mux.Handle(echoSay, connect.NewUnaryHandler(echoSay, say))
	mux.Handle(echoStream, connect.NewServerStreamHandler(echoStream, stream))
	err := connectplugin.ServePlugin(ctx, &connectplugin.PluginServerConfig{
		Services: []connectplugin.PluginService{{Type: echoName, Version: "1.0.0", Path: echoPath, Handler: mux}},
	})
	if err != nil {
		return fmt.Errorf("plugin: %w", err)
	}
	return nil
}

func say(_ context.Context, req *connect.Request[text]) (*connect.Response[text], error) {
	return connect.NewResponse(req.Msg), nil
}

func stream(ctx context.Context, _ *connect.Request[text], s *connect.ServerStream[text]) error {
	if err := s.Send(wrapperspb.String("open")); err != nil {
		return err
	}
	select {
	case <-connectplugin.Stopping(ctx):
		return connect.NewError(connect.CodeUnavailable, errors.New(takenOver))
	case <-ctx.Done():
		return ctx.Err()
	}
}
