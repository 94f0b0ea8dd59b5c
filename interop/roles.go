package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"time"

	"connectrpc.com/connect"

	"github.com/masegraye/connect-plugin-go/interop/echo"
	"github.com/masegraye/connect-plugin-go/interop/peers/connectgo"
	"github.com/masegraye/connect-plugin-go/interop/peers/curl"
	"github.com/masegraye/connect-plugin-go/interop/peers/grpcgo"
	"github.com/masegraye/connect-plugin-go/interop/peers/nghttpd"
	"github.com/masegraye/connect-plugin-go/interop/peers/ours"
)

// Names of the peers that are roles of this program.
const (
	peerOurs      = "ours"
	peerConnectGo = "connectgo"
	peerGRPCGo    = "grpcgo"
	peerGRPCIO    = "grpcio"
	peerGRPCJS    = "grpcjs"
	peerNode      = "connectnode"
	peerCurl      = "curl"
	peerH2Load    = "h2load"
	peerNghttpd   = "nghttpd"

	// The other protocols of Connect's libraries.
	overGRPC = "-grpc"
	overWeb  = "-web"

	loopback = "127.0.0.1:0"
)

// serveRole is a provider's process.
func serveRole(ctx context.Context, name string) error {
	j, err := echo.ReadJob()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, time.Duration(j.Life)*time.Second)
	defer cancel()
	talk := echo.NewTalk(os.Stdin, os.Stdout)
	ctx = talk.UntilEnd(ctx)
	var config net.ListenConfig
	l, err := config.Listen(ctx, "tcp", loopback)
	if err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	addr, _ := l.Addr().(*net.TCPAddr)
	ready := echo.Line{Port: addr.Port}
	switch name {
	case peerOurs:
		return ours.Serve(ctx, j, l, func(id string) error { ready.ID = id; return talk.Say(ready) })
	case peerNghttpd:
		_ = l.Close()
		return nghttpd.Serve(ctx, j, addr.Port, func() error { return talk.Say(ready) })
	}
	if err := talk.Say(ready); err != nil {
		return err
	}
	if name == peerGRPCGo {
		return grpcgo.Serve(ctx, j, l)
	}
	return connectgo.Serve(ctx, j, l)
}

// callRole is a caller's process. It says how the case went.
func callRole(ctx context.Context, name, play string) error {
	j, err := echo.ReadJob()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, time.Duration(j.Life)*time.Second)
	defer cancel()
	talk := echo.NewTalk(os.Stdin, os.Stdout)
	note, err := playRole(ctx, name, play, j, talk)
	if err != nil {
		return talk.Say(echo.Line{Why: err.Error()})
	}
	return talk.Say(echo.Line{OK: true, Note: note})
}

func playRole(ctx context.Context, name, play string, j echo.Job, talk *echo.Talk) (string, error) {
	switch name {
	case peerCurl:
		return curl.Play(ctx, play, j, talk)
	case peerH2Load:
		return curl.Load(ctx, j)
	case peerNghttpd:
		return nghttpd.Play(ctx, play, j, talk)
	}
	caller, err := dial(ctx, name, j)
	if err != nil {
		return "", err
	}
	defer caller.Close()
	return echo.Play(ctx, play, caller, j, talk)
}

func dial(ctx context.Context, name string, j echo.Job) (echo.Caller, error) {
	switch name {
	case peerOurs:
		return ours.Dial(ctx, j)
	case peerGRPCGo:
		return grpcgo.Dial(j)
	case peerConnectGo + overGRPC:
		return connectgo.Dial(j, connect.WithGRPC())
	case peerConnectGo + overWeb:
		return connectgo.Dial(j, connect.WithGRPCWeb())
	default:
		return connectgo.Dial(j)
	}
}
